// The kernel on the sphere: docs/papers/random_features.md, section 6.
#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "models/random_features.hpp"

namespace overparam::random_features {

namespace {

// Terms of a series below this fraction of the sum do not count.
constexpr double NEGLIGIBLE = 1e-18;
// Degrees one by one up to the first; those above enter by quadrature nodes up to the second. An
// energy above all degrees that is less than this fraction of the whole is summed, not subtracted.
constexpr Index LAST_DEGREE = 4096, FARTHEST_DEGREE = 1000000000;
constexpr double SMALL_TAIL = 1e-4;
// Eigenvalues below this count as zero.
constexpr double SMALLEST = 1e-290;
// Terms of a smooth kernel's series beyond the degree, at most: they decay at least like 2^-k.
constexpr Index MORE_TERMS = 200;

// Gamma(x)/Gamma(x + 1/2).
double half_ratio(double x) {
    double factor = 1.0;
    for (; x < 40.0; x += 1.0) factor *= (x + 0.5) / x;
    const double y = 1.0 / x;
    const double series =
        1.0 + y * (-1.0 / 8 +
                   y * (1.0 / 128 + y * (5.0 / 1024 + y * (-21.0 / 32768 + y * -399.0 / 262144))));
    return factor / (std::sqrt(x) * series);
}

double energy_of(Activation g) {
    switch (g) {
        case Activation::ERF:
            return 1.0 / 3.0;
        case Activation::RELU:
            return 0.5;
        case Activation::SQUARE:
            return 3.0;
        default:
            return 1.0;
    }
}

// Degrees one after the other: the multiplicity, the degree's eigenvalue of the kernel t^l, and
// their product.
class Degrees {
  public:
    explicit Degrees(Index dim) : n_(static_cast<double>(dim)) {}

    void next() {
        const double l = static_cast<double>(l_);
        // (2 l + N - 2)/(N - 2) has the limit 2 for the step from degree 0.
        multiplicity_ *= (2.0 * l + n_) / (2.0 * l + n_ - 2.0) * (l + n_ - 2.0) / (l + 1.0);
        leading_ *= (l + 1.0) / (n_ + 2.0 * l);
        product_ *= (2.0 * l + n_) / (2.0 * l + n_ - 2.0) * (l + n_ - 2.0) / (n_ + 2.0 * l);
        ++l_;
    }

    Index degree() const { return l_; }
    double multiplicity() const { return multiplicity_; }
    double leading() const { return leading_; }
    double product() const { return product_; }

    // The degree's eigenvalue of sum_k series_k t^k over `leading`, which has to be defined up to
    // where its terms are negligible.
    double sum(const std::vector<double>& series) const {
        const double l = static_cast<double>(l_);
        double total = 0.0, factor = 1.0;
        for (std::size_t i = l_; i < series.size(); i += 2) {
            const double k = static_cast<double>(i), term = series[i] * factor;
            total += term;
            if (i > static_cast<std::size_t>(l_) + 4 &&
                std::abs(term) < NEGLIGIBLE * std::abs(total))
                break;
            factor *= (k + 1.0) * (k + 2.0) / ((k + 2.0 - l) * (k + l + n_));
        }
        return total;
    }

  private:
    double n_, multiplicity_ = 1.0, leading_ = 1.0, product_ = 1.0;
    Index l_ = 0;
};

// Whether the kernel is not smooth at t = 1. Its eigenvalues then have a closed form: that of
// degree l + 2 is that of degree l times ((l - s)/(l + N + s))^2, s being the shift of the series.
bool is_kinked(Activation g) { return g == Activation::RELU || g == Activation::SIGN; }

// Eigenvalues and energies of the kernel E[g(x) g(y)], degree by degree from 0 to lmax.
class KernelDegrees {
  public:
    KernelDegrees(Activation g, Index dim, Index lmax)
        : g_(g), dim_(static_cast<double>(dim)), degrees_(dim) {
        if (!is_kinked(g))
            series_ = hermite_products(hermite_series(g), hermite_series(g), lmax + MORE_TERMS);
        evaluate();
    }

    void next() {
        degrees_.next();
        evaluate();
    }

    const Degrees& degrees() const { return degrees_; }
    double eigenvalue() const { return eigenvalue_; }
    double energy() const { return energy_; }

  private:
    void evaluate() {
        const Index degree = degrees_.degree();
        if (!is_kinked(g_)) {
            const double sum = degrees_.sum(series_);
            eigenvalue_ = degrees_.leading() * sum;
            energy_ = degrees_.product() * sum;
            return;
        }
        auto& [eigenvalue, energy] = last_[degree % 2];
        if (degree < 2) {
            const double ratio = half_ratio(dim_ / 2);
            if (g_ == Activation::RELU)
                eigenvalue = degree == 0 ? dim_ * ratio * ratio / (4.0 * M_PI) : 0.25 / dim_;
            else
                eigenvalue = degree == 0 ? 0.0 : ratio * ratio / M_PI;
            energy = eigenvalue * degrees_.multiplicity();
        } else {
            const double l = degree - 2.0, n = dim_, shift = hermite_series(g_).shift;
            const double root = (l - shift) / (l + n + shift), factor = root * root;
            eigenvalue *= factor;
            // Not a product with the multiplicity, which may overflow.
            energy *= factor * (2.0 * l + n + 2.0) / (2.0 * l + n - 2.0) * (l + n - 2.0) *
                      (l + n - 1.0) / ((l + 1.0) * (l + 2.0));
        }
        eigenvalue_ = eigenvalue;
        energy_ = energy;
    }

    Activation g_;
    double dim_;
    Degrees degrees_;
    std::vector<double> series_;
    double eigenvalue_ = 0.0, energy_ = 0.0;
    std::array<std::pair<double, double>, 2> last_{};
};

// The modes of a kinked kernel of high degree: functions of a real degree.
class HighDegrees {
  public:
    HighDegrees(Activation g, Index dim, double degree, double eigenvalue, double energy)
        : dim_(static_cast<double>(dim)), shift_(hermite_series(g).shift) {
        const auto [a, b] = logs(degree);
        eigenvalue_ = std::log(eigenvalue) - a;
        energy_ = std::log(energy) - b;
    }

    // Eigenvalue and energy.
    std::pair<double, double> operator()(double degree) const {
        const auto [a, b] = logs(degree);
        return {std::exp(eigenvalue_ + a), std::exp(energy_ + b)};
    }

    // The energy of all degrees above l, two apart and beginning at l + 1, far from all scales.
    double above(double l) const {
        return (*this)(l).second * (l + 0.5 * (dim_ - 2.0)) / (2.0 * (1.0 + 2.0 * shift_));
    }

  private:
    std::pair<double, double> logs(double l) const {
        const double eigenvalue =
            2.0 * (std::lgamma(0.5 * (l - shift_)) - std::lgamma(0.5 * (l + dim_ + shift_)));
        const double multiplicity = std::log((2.0 * l + dim_ - 2.0) / (l + dim_ - 2.0)) +
                                    std::lgamma(l + dim_ - 1.0) - std::lgamma(l + 1.0);
        return {eigenvalue, eigenvalue + multiplicity};
    }

    double dim_, shift_, eigenvalue_ = 0.0, energy_ = 0.0;
};

// v^T P_l(T) v, degree by degree, for the Legendre polynomials of dimension N.
class TeacherDegrees {
  public:
    TeacherDegrees(const Teacher& teacher, Index dim)
        : teacher_(teacher),
          dim_(static_cast<double>(dim)),
          previous_(teacher.T.size(), 0.0),
          value_(teacher.T.size(), 1.0) {}

    void next() {
        for (std::size_t i = 0; i < value_.size(); ++i) {
            const double up = ((2.0 * degree_ + dim_ - 2.0) * teacher_.T[i] * value_[i] -
                               degree_ * previous_[i]) /
                              (degree_ + dim_ - 2.0);
            previous_[i] = value_[i];
            value_[i] = up;
        }
        degree_ += 1.0;
    }

    double operator()() const { return form(value_); }

    // The same in the mean over high degrees of one parity: only units that are the same count.
    double high(Index parity) const {
        std::vector<double> equal(value_.size());
        for (std::size_t i = 0; i < equal.size(); ++i) {
            if (std::abs(teacher_.T[i]) > 1.0 - 1e-12)
                equal[i] = parity % 2 ? std::copysign(1.0, teacher_.T[i]) : 1.0;
        }
        return form(equal);
    }

  private:
    double form(const std::vector<double>& matrix) const {
        const std::size_t M = teacher_.v.size();
        double sum = 0.0;
        for (std::size_t i = 0; i < M; ++i)
            for (std::size_t j = 0; j < M; ++j)
                sum += teacher_.v[i] * teacher_.v[j] * matrix[i * M + j];
        return sum;
    }

    const Teacher& teacher_;
    double dim_, degree_ = 0.0;
    std::vector<double> previous_, value_;
};

void add(Modes& modes, double eigenvalue, double multiplicity, double energy, double teacher) {
    modes.eigenvalue.push_back(eigenvalue);
    modes.multiplicity.push_back(multiplicity);
    modes.energy.push_back(energy);
    modes.teacher.push_back(teacher);
}

}  // namespace

const HermiteSeries& hermite_series(Activation g) {
    static const HermiteSeries erf{{0.0, std::sqrt(M_1_PI)}, 0.5, 0.0};
    static const HermiteSeries relu{{std::sqrt(0.5 * M_1_PI), 0.5}, 1.0, 1.0};
    static const HermiteSeries quad{{0.0, 0.0, M_SQRT2}};
    static const HermiteSeries square{{1.0, 0.0, 2.0}};
    static const HermiteSeries linear{{0.0, 1.0}};
    static const HermiteSeries sign{{0.0, std::sqrt(2.0 * M_1_PI)}, 1.0, 0.0};
    switch (g) {
        case Activation::ERF:
            return erf;
        case Activation::RELU:
            return relu;
        case Activation::QUAD:
            return quad;
        case Activation::SQUARE:
            return square;
        case Activation::LINEAR:
            return linear;
        default:
            return sign;
    }
}

SphereKernel sphere_kernel(Activation g, Index dim, Index lmax) {
    SphereKernel kernel;
    const Modes modes = sphere_modes(g, dim, {g, {1.0}, {1.0}, energy_of(g)});
    KernelDegrees degree(g, dim, lmax);
    double sum = 0.0;
    for (Index l = 0; l <= lmax; ++l) {
        kernel.eigenvalue.push_back(degree.eigenvalue());
        kernel.multiplicity.push_back(degree.degrees().multiplicity());
        kernel.energy.push_back(degree.energy());
        sum += degree.energy();
        degree.next();
    }
    // Where little is left, it is summed: the modes are in the order of their degrees.
    kernel.tail = energy_of(g) - sum;
    if (kernel.tail < SMALL_TAIL * energy_of(g) && modes.tail < SMALL_TAIL * energy_of(g) &&
        lmax <= LAST_DEGREE) {
        const std::size_t below = std::count_if(kernel.eigenvalue.begin(), kernel.eigenvalue.end(),
                                                [](double x) { return x >= SMALLEST; });
        kernel.tail = modes.tail;
        for (std::size_t i = modes.energy.size(); i-- > below;) kernel.tail += modes.energy[i];
    }
    kernel.tail = std::max(kernel.tail, 0.0);
    return kernel;
}

Modes sphere_modes(Activation g, Index dim, const Teacher& teacher) {
    const bool same = g == teacher.activation;
    KernelDegrees degree(g, dim, LAST_DEGREE);
    TeacherDegrees learned(teacher, dim);
    std::vector<double> cross;
    if (!same) {
        cross = hermite_products(hermite_series(g), hermite_series(teacher.activation),
                                 LAST_DEGREE + MORE_TERMS);
    }
    Modes modes;
    double left = energy_of(g), unlearned = teacher.energy, last = 0.0;
    Index l = 0, highest = 0;
    for (; l <= LAST_DEGREE; ++l) {
        const double eigenvalue = degree.eigenvalue(), energy = degree.energy();
        if (eigenvalue >= SMALLEST) {
            double share = energy;
            if (!same) {
                const double c = degree.degrees().sum(cross);
                share =
                    degree.degrees().product() * c * (degree.degrees().leading() * c / eigenvalue);
            }
            add(modes, eigenvalue, degree.degrees().multiplicity(), energy, share * learned());
            unlearned -= modes.teacher.back();
            left -= energy;
            highest = l;
        }
        if (l >= 3 && std::max(eigenvalue, last) < SMALLEST) break;
        last = eigenvalue;
        degree.next();
        learned.next();
    }
    modes.rest = std::max(unlearned, 0.0);
    if (hermite_series(g).ratio == 0.0) {  // a polynomial: nothing is above
        if (same) modes.rest = 0.0;
        return modes;
    }
    const double coherent = same ? learned.high(highest) : 0.0;
    if (l <= LAST_DEGREE && left >= SMALL_TAIL * energy_of(g)) {
        modes.tail = left;
        return modes;
    }
    if (!is_kinked(g)) {
        for (double term = 1.0; term > NEGLIGIBLE * modes.tail && l < LAST_DEGREE;) {
            term = 0.0;
            for (int parity = 0; parity < 2; ++parity, ++l, degree.next()) term += degree.energy();
            modes.tail += term;
        }
    } else {
        const HighDegrees high(g, dim, static_cast<double>(highest), modes.eigenvalue.back(),
                               modes.energy.back());
        const Quadrature rule = gauss_legendre(12);
        double low = highest + 1.0;
        for (; low < FARTHEST_DEGREE; low *= 2.0) {
            for (std::size_t i = 0; i < rule.nodes.size(); ++i) {
                const auto [eigenvalue, density] = high(low + low * rule.nodes[i]);
                const double energy = 0.5 * low * rule.weights[i] * density;
                if (eigenvalue >= SMALLEST)
                    add(modes, eigenvalue, energy / eigenvalue, energy, coherent * energy);
                else
                    modes.tail += energy;
            }
        }
        modes.tail += high.above(low);
    }
    if (same) modes.rest = coherent * modes.tail;
    return modes;
}

}  // namespace overparam::random_features
