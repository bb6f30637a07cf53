// The kernel on the sphere: docs/papers/random_features.md, section 6.
#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <utility>

#include "models/random_features.hpp"

namespace overparam::random_features {

namespace {

// Terms of a series below this fraction of the sum do not count.
constexpr double NEGLIGIBLE = 1e-18;
// Degrees one by one up to the first; those above, where there are any, by quadrature nodes on
// octaves up to the second.
constexpr Index LAST_DEGREE = 4096, FARTHEST_DEGREE = 1000000000;
constexpr int OCTAVE_NODES = 12;
// Eigenvalues, and energies of smooth kernels, below this count as zero.
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
                std::abs(term) <= NEGLIGIBLE * std::abs(total))
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
    // Whether nothing is left from this degree on.
    bool finished() const { return finished_; }

  private:
    void evaluate() {
        const Index degree = degrees_.degree();
        if (!is_kinked(g_)) {
            const double sum = degrees_.sum(series_), before = energy_;
            eigenvalue_ = degrees_.leading() * sum;
            energy_ = degrees_.product() * sum;
            finished_ = degree > 2 && std::max(before, energy_) < SMALLEST;
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
    bool finished_ = false;
    std::array<std::pair<double, double>, 2> last_{};
};

// The degrees of a kinked kernel above a high one, by its eigenvalue and energy: functions of a
// real degree, of which the sum over every second integer is half the integral between midpoints.
class HighDegrees {
  public:
    HighDegrees(Activation g, Index dim, Index degree, double eigenvalue, double energy)
        : dim_(static_cast<double>(dim)),
          shift_(hermite_series(g).shift),
          low_(static_cast<double>(degree) + 1.0) {
        const auto [a, b] = logs(static_cast<double>(degree));
        eigenvalue_ = std::log(eigenvalue) - a;
        energy_ = std::log(energy) - b;
        // The first correction of Euler and Maclaurin to the energy, as a shift of the lower end.
        low_ += (logs(low_ - 0.5).second - logs(low_ + 0.5).second) / 6.0;
    }

    // Calls f with the eigenvalue and the energy of each group, the last one of eigenvalue 0.
    template <class F>
    void each(F&& f) const {
        static const Quadrature rule = gauss_legendre(OCTAVE_NODES);
        double low = low_;
        for (; low < FARTHEST_DEGREE; low *= 2.0) {
            for (int i = 0; i < OCTAVE_NODES; ++i) {
                const auto [a, b] = logs(low + low * rule.nodes[i]);
                f(std::exp(eigenvalue_ + a), 0.5 * low * rule.weights[i] * std::exp(energy_ + b));
            }
        }
        // Far from all scales the energies decay like the power 2 + 2 s.
        f(0.0, std::exp(energy_ + logs(low).second) * low / (2.0 * (1.0 + 2.0 * shift_)));
    }

  private:
    std::pair<double, double> logs(double l) const {
        const double eigenvalue =
            2.0 * (std::lgamma(0.5 * (l - shift_)) - std::lgamma(0.5 * (l + dim_ + shift_)));
        const double multiplicity = std::log((2.0 * l + dim_ - 2.0) / (l + dim_ - 2.0)) +
                                    std::lgamma(l + dim_ - 1.0) - std::lgamma(l + 1.0);
        return {eigenvalue, eigenvalue + multiplicity};
    }

    double dim_, shift_, low_, eigenvalue_ = 0.0, energy_ = 0.0;
};

// v^T P_l(T) v, degree by degree, for the Legendre polynomials of dimension N.
class TeacherDegrees {
  public:
    TeacherDegrees(const Teacher& teacher, Index dim) : dim_(static_cast<double>(dim)) {
        const std::size_t M = teacher.v.size();
        std::map<double, double> weights;  // of the distinct overlaps
        for (std::size_t i = 0; i < M; ++i)
            for (std::size_t j = 0; j < M; ++j)
                weights[teacher.T[i * M + j]] += teacher.v[i] * teacher.v[j];
        for (const auto& [overlap, weight] : weights) pairs_.push_back({overlap, weight, 0.0, 1.0});
    }

    void next() {
        for (Pair& pair : pairs_) {
            const double up = ((2.0 * degree_ + dim_ - 2.0) * pair.overlap * pair.value -
                               degree_ * pair.previous) /
                              (degree_ + dim_ - 2.0);
            pair.previous = pair.value;
            pair.value = up;
        }
        degree_ += 1.0;
    }

    double operator()() const {
        double sum = 0.0;
        for (const Pair& pair : pairs_) sum += pair.weight * pair.value;
        return sum;
    }

    // The same in the mean over high degrees of one parity: only units that are the same count.
    double high(Index parity) const {
        double sum = 0.0;
        for (const Pair& pair : pairs_) {
            if (std::abs(pair.overlap) > 1.0 - 1e-12)
                sum += parity % 2 == 1 && pair.overlap < 0.0 ? -pair.weight : pair.weight;
        }
        return sum;
    }

  private:
    struct Pair {
        double overlap, weight, previous, value;
    };
    double dim_, degree_ = 0.0;
    std::vector<Pair> pairs_;
};

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
    const Index end = std::max(lmax, LAST_DEGREE);
    KernelDegrees degree(g, dim, end);
    Index highest = 0;
    double eigenvalue = 0.0, energy = 0.0;
    kernel.tail = 0.0;
    for (Index l = 0; l <= end && (l <= lmax || !degree.finished()); ++l) {
        if (l <= lmax) {
            kernel.eigenvalue.push_back(degree.eigenvalue());
            kernel.multiplicity.push_back(degree.degrees().multiplicity());
            kernel.energy.push_back(degree.energy());
        } else {
            kernel.tail += degree.energy();
        }
        if (degree.energy() > 0.0)
            highest = l, eigenvalue = degree.eigenvalue(), energy = degree.energy();
        degree.next();
    }
    if (is_kinked(g)) {
        HighDegrees(g, dim, highest, eigenvalue, energy).each([&](double, double more) {
            kernel.tail += more;
        });
    }
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
    double unlearned = teacher.energy;
    const auto group = [&](double eigenvalue, double multiplicity, double energy, double share) {
        if (eigenvalue >= SMALLEST) {
            modes.eigenvalue.push_back(eigenvalue);
            modes.multiplicity.push_back(multiplicity);
            modes.energy.push_back(energy);
            modes.teacher.push_back(share);
            unlearned -= share;
        } else {
            modes.tail += energy;
            if (same) modes.rest += share;
        }
    };
    Index highest = 0;
    double eigenvalue = 0.0, energy = 0.0;
    for (Index l = 0; l <= LAST_DEGREE && !degree.finished(); ++l, degree.next(), learned.next()) {
        if (degree.energy() == 0.0) continue;
        highest = l, eigenvalue = degree.eigenvalue(), energy = degree.energy();
        double share = energy;
        if (!same) {
            const Degrees& at = degree.degrees();
            const double c = at.sum(cross);
            share = eigenvalue > 0.0 ? at.product() * c * (at.leading() * c / eigenvalue) : 0.0;
        }
        group(eigenvalue, degree.degrees().multiplicity(), energy, share * learned());
    }
    if (is_kinked(g)) {
        const double share = same ? learned.high(highest) : 0.0;
        HighDegrees(g, dim, highest, eigenvalue, energy).each([&](double value, double more) {
            group(value, more / value, more, share * more);
        });
    }
    if (!same) modes.rest = std::max(unlearned, 0.0);
    return modes;
}

}  // namespace overparam::random_features
