#include <algorithm>
#include <array>
#include <cmath>
#include <complex>
#include <functional>
#include <limits>
#include <memory>
#include <vector>

#include "math/gauss.hpp"
#include "math/roots.hpp"
#include "models/empirical_flow.hpp"

namespace overparam::empirical_flow {

namespace {

using Complex = std::complex<double>;

constexpr double INF = std::numeric_limits<double>::infinity();
constexpr double NaN = std::numeric_limits<double>::quiet_NaN();

// Widths that differ by less than this from the rank of the teacher are equal to it.
constexpr double EQUAL_RANKS = 1e-12;

// ---- Y = S* + sigma GOE: integrals over its spectrum above and below a cut
// ------------------------

// With rho the density and h its Hilbert transform: integrals above the cut of rho, x rho, h rho
// and x h rho, and below it of x^2 rho.
struct Tails {
    double mass, first, force0, force1, low2;
};

// The law of Y for one variance at a time.
class Spread {
  public:
    virtual ~Spread() = default;
    virtual void widen(double variance) = 0;
    virtual double top() const = 0;            // upper edge
    virtual double quantile(double mass) = 0;  // has `mass` above it; upper end of a gap
    virtual Tails above_quantile() = 0;        // above the last quantile
    virtual Tails above(double x) = 0;
    virtual double vanishing() const = 0;  // variance at which Y is in its limit sigma -> 0
    const double mean, second;             // moments of the teacher
    const double extra;                    // variance of the semicircle that it contains
    const double rank;                     // its mass off 0
    Index evaluations = 0;

  protected:
    Spread(double mean, double second, double extra, double rank)
        : mean(mean), second(second + extra), extra(extra), rank(rank) {}
};

const Quadrature& panel_rule() {
    static const Quadrature rule = gauss_legendre(14);
    return rule;
}

// Integrals of z^n g^m dz along a path on which z and g are analytic.
struct Sums {
    Complex g_z{0.0}, g_z2{0.0}, gg{0.0}, gg_z{0.0};  // g z dz, g z^2 dz, g^2 dz, g^2 z dz
    void add(Complex z, Complex g, Complex dz) {
        const Complex gd = g * dz, gz = gd * z;
        g_z += gz;
        g_z2 += gz * z;
        gg += gd * g;
        gg_z += gz * g;
    }
};

// Marchenko-Pastur teacher, in units of sigma: with k = kappa*, b = sigma k/a, its Cauchy transform
// g at z solves z = 1/g + g - k/(g - b), so that z is a rational function of g.
class RationalSpread final : public Spread {
  public:
    RationalSpread(double ratio, double scale, double extra)
        : Spread(scale, scale * scale * (1.0 + 1.0 / ratio), extra,
                 extra > 0.0 ? 1.0 : std::min(ratio, 1.0)),
          k_(ratio),
          a_(scale) {}

    void widen(double variance) override {
        sigma_ = std::sqrt(variance + extra);
        total_ = second + variance;
        b_ = sigma_ * k_ / a_;
        // On (0, b) the function log(g^2 (1 + k/(b - g)^2)) increases; it is 0 at the edge.
        const double root_k = std::sqrt(k_);
        const double edge = newton([this](double g) { return stationary(g); }, 0.0, b_,
                                   1.0 / (1.0 + (1.0 + root_k) / b_), 1e-15);
        top_ = z(edge);
        low_ = lower_bulk_ = -2.0;
        const double cube = std::cbrt(k_);
        gap_ = k_ < 1.0 && b_ * b_ < std::pow(1.0 - cube, 3);
        if (gap_) {
            const double middle = b_ * cube / (1.0 - cube);  // of g - b, where dz/dg is smallest
            const double d = newton([this](double d) { return gap_edge(d); }, 0.0, middle,
                                    b_ / (1.0 / root_k - 1.0), 1e-15);
            lower_bulk_ = b_ + d + 1.0 / (b_ + d) - k_ / d;
        }
    }

    double top() const override { return sigma_ * top_; }

    double vanishing() const override { return 1e-22 * second; }

    double quantile(double mass) override {
        if (gap_ && std::abs(mass - k_) < EQUAL_RANKS) {
            quantile_ = b_ + 1.0;
            return sigma_ * lower_bulk_;
        }
        double low = low_, high = top_;
        if (gap_ && mass < k_) low = lower_bulk_;
        if (gap_ && mass > k_) high = std::min(lower_bulk_, 2.0);
        const auto missing = [&](double x) {
            const auto [g, outside] = locate(x);
            return std::pair(mass - mass_above(g, outside), g.imag() / M_PI);
        };
        guess_ = newton(missing, low, high, guess_, 1e-15);
        quantile_ = locate(guess_).first;
        return sigma_ * guess_;
    }

    // Smallest mean square error of an estimate of the teacher from Y.
    double least_error() const {
        const double s = sigma_ * sigma_, spread = a_ * a_ / k_;
        if (s < spread) {
            const auto square = [](Complex g) { return g.real() * g.real(); };
            return s * (1.0 - 4.0 * mean_of(square));
        }
        // The estimate is a b^2/|b - g|^2: variance of the teacher less that of the estimate.
        const auto square = [this](Complex g) {
            const double gain = (2.0 * b_ * g.real() - std::norm(g)) / std::norm(b_ - g);
            return k_ * gain * gain;
        };
        return spread * (1.0 - mean_of(square));
    }

    Tails above_quantile() override { return integrals(quantile_); }

    Tails above(double x) override {
        const auto [g, outside] = locate(x / sigma_);
        if (outside > 0) return {0.0, 0.0, 0.0, 0.0, total_};
        if (outside < 0) return {1.0, mean, 0.0, 0.5, 0.0};
        return integrals(g);
    }

  private:
    Tails integrals(Complex g) {
        ++evaluations;
        const double s = sigma_ * sigma_, mass = mass_above(g, 0);
        const Quadrature& rule = panel_rule();
        const std::size_t n = rule.nodes.size();
        Sums sums;
        if (std::abs(g - 0.5 * b_) < 0.5 * b_) {
            // To the interval (0, b), along a circle through 0 and b seen from g: log(g/(b - g)).
            const Complex m = g / (b_ - g);
            const double modulus = std::abs(m), angle = std::arg(m);
            for (std::size_t i = 0; i < n; ++i) {
                const double theta = angle * (1.0 - rule.nodes[i]);
                const Complex at = std::polar(modulus, theta);
                const Complex node = b_ * at / (1.0 + at);
                const Complex dg = Complex(0.0, -angle * rule.weights[i]) * node / (1.0 + at);
                sums.add(z(node), node, slope(node) * dg);
            }
            return {mass, sigma_ * sums.g_z.imag() / M_PI, sums.gg.imag() / (2.0 * M_PI * sigma_),
                    sums.gg_z.imag() / (2.0 * M_PI), total_ - s * sums.g_z2.imag() / M_PI};
        }
        // To the negative axis, along a circle around 0. The nearest pole of z is b, seen from log
        // g at a distance that limits the panels.
        // In a gap any real g above b does: one on the scale of the bulk below.
        const double modulus = g.imag() > 0.0 ? std::abs(g) : b_ + 1.0;
        const double away = std::log(modulus / b_);
        for (double start = std::arg(g); start < M_PI;) {
            double length = std::min(0.5 * M_PI, 1.5 * std::hypot(start, away));
            if (start + 1.0001 * length > M_PI) length = M_PI - start;
            for (std::size_t i = 0; i < n; ++i) {
                const Complex node = std::polar(modulus, start + length * rule.nodes[i]);
                const Complex dg = Complex(0.0, length * rule.weights[i]) * node;
                sums.add(z(node), node, slope(node) * dg);
            }
            start = length == M_PI - start ? M_PI : start + length;
        }
        return {mass, mean + sigma_ * sums.g_z.imag() / M_PI,
                sums.gg.imag() / (2.0 * M_PI * sigma_), 0.5 + sums.gg_z.imag() / (2.0 * M_PI),
                -s * sums.g_z2.imag() / M_PI};
    }

    // Of a function of the Cauchy transform, over the law.
    template <class F>
    double mean_of(F&& f) const {
        const auto lower_edge = [this](double g) {  // in -g
            const double d = b_ + g, ratio = k_ / (d * d);
            return std::pair(std::log1p(ratio) + 2.0 * std::log(g),
                             2.0 / g - 2.0 * ratio / (d * (1.0 + ratio)));
        };
        const double bottom = z(-newton(lower_edge, 0.0, 1.0, 0.5, 1e-15));
        if (!gap_) return mean_of(f, bottom, top_);
        const double steepest = b_ * std::cbrt(k_) / (1.0 - std::cbrt(k_));
        const double d = newton(
            [&](double d) {
                const auto [value, slope] = gap_edge(d);
                return std::pair(-value, -slope);
            },
            steepest, 1.0 - b_, 0.5, 1e-15);
        return mean_of(f, bottom, z(b_ + d)) + mean_of(f, lower_bulk_, top_);
    }

    // Over one bulk, in the angle of x = middle - half width cos(angle), by panels that are halved
    // until they agree.
    template <class F>
    double mean_of(F&& f, double left, double right) const {
        const double middle = 0.5 * (left + right), half = 0.5 * (right - left);
        const Quadrature& rule = panel_rule();
        const auto panel = [&](double start, double length) {
            double sum = 0.0;
            for (std::size_t i = 0; i < rule.nodes.size(); ++i) {
                const double angle = start + length * rule.nodes[i];
                const Complex g = locate(middle - half * std::cos(angle)).first;
                sum += rule.weights[i] * f(g) * g.imag() * std::sin(angle);
            }
            return sum * length * half / M_PI;
        };
        const std::function<double(double, double, double, int)> refine =
            [&](double start, double length, double whole, int depth) {
                const double first = panel(start, 0.5 * length);
                const double other = panel(start + 0.5 * length, 0.5 * length);
                if (depth == 0 || std::abs(first + other - whole) < 1e-14) return first + other;
                return refine(start, 0.5 * length, first, depth - 1) +
                       refine(start + 0.5 * length, 0.5 * length, other, depth - 1);
            };
        return refine(0.0, M_PI, panel(0.0, M_PI), 40);
    }

    template <class T>
    T z(T g) const {
        return 1.0 / g + g - k_ / (g - b_);
    }

    Complex slope(Complex g) const {
        const Complex inverse = 1.0 / g, other = 1.0 / (g - b_);
        return 1.0 - inverse * inverse + k_ * other * other;
    }

    std::pair<double, double> stationary(double g) const {
        const double d = b_ - g, ratio = k_ / (d * d);
        return {std::log1p(ratio) + 2.0 * std::log(g), 2.0 * ratio / (d * (1.0 + ratio)) + 2.0 / g};
    }

    // Increases with d = g - b > 0 below the steepest point of the gap; 0 at the edge.
    std::pair<double, double> gap_edge(double d) const {
        const double g = b_ + d, ratio = k_ / (d * d);
        return {-std::log1p(ratio) - 2.0 * std::log(g),
                2.0 * ratio / (d * (1.0 + ratio)) - 2.0 / g};
    }

    // The Cauchy transform at real x, with Im g = pi rho >= 0, and whether x is above (1) or below
    // (-1) the law.
    std::pair<Complex, int> locate(double x) const {
        // The polynomial of g has a root above b: d + b + 1/(b + d) - k/d = x for d = g - b.
        const auto positive = [this](double y) {  // root of d - k/d = y
            const double half = 0.5 * std::abs(y), r = half + std::sqrt(half * half + k_);
            return y > 0.0 ? r : k_ / r;
        };
        const double high = positive(x - b_), low = positive(x - b_ - 1.0 / b_);
        const double signal = (1.0 - std::sqrt(k_)) * (1.0 - std::sqrt(k_)) / b_;
        const double d = newton(
            [&](double d) {
                const double g = b_ + d;
                return std::pair((d - high) * (d + k_ / high) + d / g,
                                 2.0 * d - high + k_ / high + b_ / (g * g));
            },
            0.999 * low, high, x < signal ? low : high, 1e-15);
        const double g = b_ + d;
        // The other two roots by their product b/g and their sum.
        const double product = b_ / g;
        const bool large = std::abs(1.0 / g) + k_ / d < std::abs(x) + g;
        const double half = 0.5 * (large ? b_ + 1.0 / g - k_ / d : x - d);
        const double square = product - half * half;
        if (square > 0.0) return {Complex(half, std::sqrt(square)), 0};
        double far = half + std::copysign(std::sqrt(-square), half), near = product / far;
        if (far > b_) {
            double roots[3] = {g, far, near};
            std::sort(roots, roots + 3);
            return {roots[1], 0};
        }
        return {near, far > 0.0 ? 1 : -1};
    }

    double mass_above(Complex g, int outside) const {
        if (outside != 0) return outside > 0 ? 0.0 : 1.0;
        const double x = g.real(), y = g.imag(), left = b_ - x;
        const double angles = std::atan2(y, x) + k_ * std::atan2(y, left);
        return (angles - x * y - k_ * b_ * y / (left * left + y * y)) / M_PI;
    }

    double k_, a_, sigma_ = 0.0, b_ = 0.0, total_ = 0.0;
    double top_ = 0.0, low_ = 0.0, lower_bulk_ = 0.0;  // edges; that of the upper bulk if gap_
    double guess_ = 0.0;                               // last quantile
    Complex quantile_;                                 // and the transform there
    bool gap_ = false;
};

// Any teacher, by Biane's parametrisation: with G its Cauchy transform, that of Y at z = w + v G(w)
// is G(w), v the variance, for w on or above a curve in the upper half plane that belongs to real
// z.
class CurveSpread final : public Spread {
  public:
    explicit CurveSpread(const TeacherLaw& law)
        : Spread(law.mean, law.second, law.variance, law.variance > 0.0 ? 1.0 : mass_off_zero(law)),
          law_(law) {
        const Interval& part = law.interval;
        for (std::size_t i = 0; i < law.positions.size(); ++i)
            blocks_.push_back({law.positions[i], law.positions[i], law.weights[i]});
        if (part.mass > 0.0)
            blocks_.push_back({part.unit * part.low, part.unit * part.high, part.mass});
        std::sort(blocks_.begin(), blocks_.end(),
                  [](const Block& a, const Block& b) { return a.low < b.low; });
        for (const Block& block : blocks_) {
            poles_.push_back(block.low);
            if (block.high > block.low) poles_.push_back(block.high);
        }
    }

    void widen(double variance) override {
        variance_ = variance + extra;
        total_ = second + variance;
        const double sigma = std::sqrt(variance_);
        const double low = poles_.front(), high = poles_.back();
        const double right = open_edge(high, high + sigma), left = open_edge(low, low - sigma);
        top_ = position(right);
        bottom_ = position(left);
        warm_ = false;
    }

    double top() const override { return top_; }

    double vanishing() const override { return 1e-14 * second; }

    double quantile(double mass) override {
        double above = 0.0;
        for (std::size_t j = blocks_.size() - 1; j > 0; --j) {
            above += blocks_[j].mass;
            if (std::abs(above - mass) > EQUAL_RANKS) continue;
            const double a = blocks_[j - 1].high, b = blocks_[j].low;
            const double least = quietest(a, b);
            if (!(fall(least) * variance_ < 1.0)) break;
            quantile_ = open_edge(a, least);
            return position(open_edge(b, least));
        }
        double inside = NaN;
        const auto missing = [&](double x) {
            quantile_ = locate(x);
            inside = x;
            const Complex g = resolvent(quantile_).first;
            return std::pair(mass - integrals(quantile_).mass, -g.imag() / M_PI);
        };
        const double x = newton(missing, bottom_, top_, guess_, 1e-14);
        if (x != inside) quantile_ = locate(x);
        return guess_ = x;
    }

    Tails above_quantile() override { return integrals(quantile_); }

    Tails above(double x) override {
        if (x >= top_) return {0.0, 0.0, 0.0, 0.0, total_};
        if (x <= bottom_) return {1.0, mean, 0.0, 0.5, 0.0};
        return integrals(locate(x));
    }

  private:
    struct Block {
        double low, high, mass;
    };

    static double mass_off_zero(const TeacherLaw& law) {
        const bool null = !law.positions.empty() && law.positions.front() == 0.0;
        return null ? 1.0 - law.weights.front() : 1.0;
    }

    // G and its derivative.
    std::pair<Complex, Complex> resolvent(Complex w) const {
        Complex value = 0.0, slope = 0.0;
        for (std::size_t i = 0; i < law_.positions.size(); ++i) {
            const Complex inverse = 1.0 / (w - law_.positions[i]);
            value += law_.weights[i] * inverse;
            slope -= law_.weights[i] * inverse * inverse;
        }
        const Interval& part = law_.interval;
        if (part.mass > 0.0) {
            const Complex u = w / part.unit;
            const Complex root = std::sqrt(u - part.low) * std::sqrt(u - part.high);
            const Complex inverse = 1.0 / (part.slope * u - part.shift + root);
            const Complex bend = part.slope + (u - 0.5 * (part.low + part.high)) / root;
            value += part.factor * inverse;
            slope -= part.factor * inverse * inverse * bend / part.unit;
        }
        return {value, slope};
    }

    // E 1/(u - x)^2 off the law.
    double fall(double u) const { return -resolvent(u).second.real(); }

    double position(double u) const { return u + variance_ * resolvent(u).first.real(); }

    // Where E 1/(u - x)^2 = 1/variance between a block's end and a point at which it is smaller.
    double open_edge(double end, double beyond) const {
        const auto excess = [this, end](double distance) {
            return std::log(variance_ * fall(end + distance));
        };
        const double far = beyond - end;
        double near = 1e-3 * far;
        while (std::abs(near) > 1e-300 && excess(near) < 0.0) near *= 1e-2;
        if (std::abs(near) <= 1e-300) return end;
        return end + root(excess, near, excess(near), far, std::min(excess(far), -1e-300), 0.0);
    }

    // Where E 1/(u - x)^2, which is convex in a gap of the law, is smallest.
    double quietest(double a, double b) const {
        const double middle = 0.5 * (a + b), reach = 1e-9 * (b - a);
        return minimum([this](double u) { return fall(u); }, a + reach, middle, b - reach,
                       fall(middle), 1e-9 * (b - a))
            .first;
    }

    // The point of the curve above u; on the real axis in a gap.
    Complex lift(double u) const {
        const auto fall_at =
            [&](double square) {  // E 1/((u - x)^2 + y^2) and its derivative in y^2
                const double y = std::sqrt(square);
                const auto [value, slope] = resolvent(Complex(u, y));
                const double f = -value.imag() / y;
                return std::pair(f, (-slope.real() - f) / (2.0 * square));
            };
        const double least = 1e-24 * variance_ * std::min(1.0, variance_ / second);
        if (fall_at(least).first * variance_ <= 1.0) return u;
        const double square = newton(
            [&](double square) {
                const auto [f, slope] = fall_at(square);
                return std::pair(1.0 / f - variance_, -slope / (f * f));
            },
            least, variance_ * (1.0 + 1e-12), 0.5 * variance_, 1e-12);
        return {u, std::sqrt(square)};
    }

    Complex locate(double x) {
        Complex w = last_;
        if (warm_ && polish(w, x)) return last_ = w;
        const double sigma = std::sqrt(variance_);
        const auto ahead = [&](double u) {
            w = lift(u);
            return w.real() + variance_ * resolvent(w).first.real() - x;
        };
        const double a = x - 1.0000001 * sigma, b = x + 1.0000001 * sigma;
        const double u = root(ahead, a, ahead(a), b, ahead(b), 1e-12 * sigma);
        w = lift(u);
        if (w.imag() > 1e-6 * sigma) {
            Complex better = w;
            if (polish(better, x)) w = better;
        }
        warm_ = w.imag() > 0.0;
        return last_ = w;
    }

    // Newton's method; any w above the real axis that belongs to x is the one wanted.
    bool polish(Complex& w, double x) const {
        for (int iteration = 0; iteration < 12; ++iteration) {
            const auto [value, slope] = resolvent(w);
            const Complex step = (w + variance_ * value - x) / (1.0 + variance_ * slope);
            w -= step;
            if (!(w.imag() > 0.0)) return false;
            if (std::abs(step) < 1e-9 * std::min(std::abs(w), std::sqrt(variance_))) return true;
        }
        return false;
    }

    double distance(Complex w) const {
        const auto next = std::lower_bound(poles_.begin(), poles_.end(), w.real());
        double least = INF;
        if (next != poles_.end()) least = std::abs(w - *next);
        if (next != poles_.begin()) least = std::min(least, std::abs(w - *(next - 1)));
        return least;
    }

    // Imaginary parts of the integrals of g dz, g z dz, g z^2 dz, g^2 dz and g^2 z dz from w to the
    // real axis below or above the law, along a circle centred on the axis.
    std::array<double, 5> path(Complex w, bool upwards) const {
        const double centre = upwards ? poles_.back() : poles_.front();
        const double radius = std::abs(w - centre), start = std::arg(w - centre);
        const double length = upwards ? start : M_PI - start, sign = upwards ? -1.0 : 1.0;
        const Complex arm = w - centre;
        const auto at = [&](double turned) {  // exact on the scale of w where the circle is larger
            const double half = 0.5 * sign * turned;
            return w + arm * Complex(0.0, 2.0 * std::sin(half)) * std::polar(1.0, half);
        };
        const Quadrature& rule = panel_rule();
        Complex g1 = 0.0, g1w = 0.0, g1w2 = 0.0, g2 = 0.0, g2w = 0.0, g3 = 0.0;
        for (double done = 0.0; done < length;) {
            double panel = std::min(0.5 * M_PI, 1.5 * distance(at(done)) / radius);
            if (done + 1.0001 * panel > length) panel = length - done;
            while (distance(at(done + panel)) < 0.6 * panel * radius) panel *= 0.7;
            for (std::size_t i = 0; i < rule.nodes.size(); ++i) {
                const Complex node = at(done + panel * rule.nodes[i]);
                const Complex dw = Complex(0.0, sign * panel * rule.weights[i]) * (node - centre);
                const Complex g = resolvent(node).first, gd = g * dw, ggd = g * gd;
                g1 += gd;
                g1w += gd * node;
                g1w2 += gd * node * node;
                g2 += ggd;
                g2w += ggd * node;
                g3 += ggd * g;
            }
            const double before = done;
            done += panel;
            if (done >= length || done == before) break;
        }
        // z = w + v G, dz = dw + v dG, the terms with dG by parts; they are real at the end.
        const double v = variance_;
        const Complex g = resolvent(w).first, gg = g * g, ggg = gg * g;
        return {(g1 - 0.5 * v * gg).imag(),
                (g1w + 0.5 * v * g2 - v * (0.5 * w * gg + v * ggg / 3.0)).imag(),
                (g1w2 + v * g2w + v * v * g3 / 3.0 -
                 v * (0.5 * w * w * gg + v * (2.0 / 3.0 * w * ggg + 0.25 * v * gg * gg)))
                    .imag(),
                (g2 - v * ggg / 3.0).imag(),
                (g2w + 2.0 / 3.0 * v * g3 - v * (w * ggg / 3.0 + 0.25 * v * gg * gg)).imag()};
    }

    Tails integrals(Complex w) {
        ++evaluations;
        if (w.imag() == 0.0) {
            if (w.real() > poles_.back()) return {0.0, 0.0, 0.0, 0.0, total_};
            if (w.real() < poles_.front()) return {1.0, mean, 0.0, 0.5, 0.0};
            // All of a gap does; its lower end is on the scale of what is below.
            const auto next = std::lower_bound(poles_.begin(), poles_.end(), w.real());
            w = open_edge(*(next - 1), w.real());
        }
        const std::array<double, 5> low = path(w, false);
        Tails tails{1.0 - low[0] / M_PI, mean - low[1] / M_PI, -low[3] / (2.0 * M_PI),
                    0.5 - low[4] / (2.0 * M_PI), low[2] / M_PI};
        if (tails.mass < 0.2) {  // the same without its cancellation
            const std::array<double, 5> high = path(w, true);
            tails.mass = -high[0] / M_PI;
            tails.first = -high[1] / M_PI;
            tails.force0 = -high[3] / (2.0 * M_PI);
            tails.force1 = -high[4] / (2.0 * M_PI);
        }
        return tails;
    }

    TeacherLaw law_;
    std::vector<Block> blocks_;
    std::vector<double> poles_;  // where G is singular
    double variance_ = 0.0, total_ = 0.0, top_ = 0.0, bottom_ = 0.0;
    double guess_ = 0.0;  // last quantile
    Complex quantile_;    // and the point of the curve that belongs to it
    Complex last_;        // last point found
    bool warm_ = false;
};

std::unique_ptr<Spread> make_spread(const TeacherLaw& teacher) {
    if (teacher.ratio > 0.0)
        return std::make_unique<RationalSpread>(teacher.ratio, teacher.mean, teacher.variance);
    return std::make_unique<CurveSpread>(teacher);
}

// ---- the equations
// ---------------------------------------------------------------------------------

// tau and the integrals that belong to it, at one sigma^2 and alpha.
struct Kept {
    double tau;
    Tails tails;
};

// Largest log((R + Delta)/(4 alpha sigma^2)) of what counts as a solution.
constexpr double RESIDUAL = 1e-8;

// Relative step of sigma^2 by which a solution is told to be stable.
constexpr double SLOPE_STEP = 1e-5;

class Statics {
  public:
    Statics(Spread& spread, const Setting& setting) : y_(spread), set_(setting) {}

    // What all equations at this sigma^2 need.
    void widen(double s) {
        s_ = s;
        y_.widen(s);
        top_ = y_.top();
        edge_ = set_.kappa < 1.0 ? y_.quantile(set_.kappa) : -INF;
        cut_known_ = false;
    }

    // Integrals above max(tau, q).
    Tails tails(double tau) {
        if (tau > edge_) return y_.above(tau);
        if (!cut_known_) at_edge_ = y_.above_quantile();
        cut_known_ = true;
        return at_edge_;
    }

    static double response(const Kept& at) { return at.tails.force1 - at.tau * at.tails.force0; }

    double risk(const Kept& at) const {
        return 2.0 *
               (at.tau * at.tau * at.tails.mass + at.tails.low2 - s_ + 4.0 * s_ * response(at));
    }

    // The root of c = 1 - D(tau)/alpha, tau = lam/c; for lam = 0 the limit 0+.
    Kept keep() {
        const double alpha = set_.alpha, lam = set_.ridge;
        if (lam >= top_) return keep_at(lam);
        double low = std::max(lam, 0.0);
        if (edge_ > low) {
            // Below the edge D is linear in tau.
            const Tails& t = tails(low);
            const double slope = t.force0 / alpha, rest = 1.0 - t.force1 / alpha;
            const double root = std::sqrt(rest * rest + 4.0 * lam * slope);
            const double tau =
                rest > 0.0 ? 2.0 * lam / (rest + root) : (root - rest) / (2.0 * slope);
            if (tau <= edge_) return {tau, t};
            low = edge_;
        } else if (lam == 0.0) {
            const Kept zero = keep_at(0.0);
            if (response(zero) <= alpha) return zero;
        }
        const double tau = newton_within(
            [&](double tau) {
                const Kept now = keep_at(tau);
                return std::pair(1.0 - response(now) / alpha - lam / tau,
                                 now.tails.force0 / alpha + lam / (tau * tau));
            },
            low, top_, guess_ * std::sqrt(s_),
            [&](double tau) { return 1e-8 * std::min(tau, top_ - tau); });
        guess_ = tau / std::sqrt(s_);
        return keep_at(tau);
    }

    Kept keep_at(double tau) { return {tau, tails(tau)}; }

    // Logarithm of (R + Delta)/(4 alpha sigma^2): falls through 0 at a stable solution.
    double excess(double log_s) {
        widen(std::exp(log_s));
        return balance(risk(keep()));
    }

    double balance(double risk) const {
        return std::log(std::max(risk + set_.noise, 1e-300) / (4.0 * set_.alpha * s_));
    }

    // D/alpha + lam/tau - 1 for the alpha that belongs to tau at this sigma^2.
    double mismatch(double tau) {
        const Kept at = keep_at(tau);
        const double lam = set_.ridge;
        return 4.0 * s_ * response(at) / (risk(at) + set_.noise) + (lam > 0.0 ? lam / tau : 0.0) -
               1.0;
    }

    // A solution of which tau is known, at its own alpha.
    Fixed with_alpha(double tau) {
        const Kept at = keep_at(tau);
        set_.alpha = (risk(at) + set_.noise) / (4.0 * s_);
        Fixed f = fixed(at, set_.alpha, false);
        const double s = s_, log_s = std::log(s);
        f.stable = excess(log_s + SLOPE_STEP) < excess(log_s - SLOPE_STEP);
        widen(s);
        return f;
    }

    // The threshold at which the risk is smallest, of those with D <= alpha; `inside` unless it is
    // the smallest of these, which belongs to lam = 0.
    struct Best {
        double tau, risk;
        bool inside;
    };
    Best best() {
        set_.ridge = 0.0;
        const Kept first = keep();
        const auto slope = [this](double tau) {  // dR/dtau, over 4
            const Tails t = tails(tau);
            return tau * t.mass - 2.0 * s_ * t.force0;
        };
        Best found{first.tau, risk(first), false};
        const auto consider = [&](double tau) {
            const double R = risk(keep_at(tau));
            if (R < found.risk) found = {tau, R, true};
        };
        if (!(first.tau < top_)) return found;
        double last = first.tau, at_last = slope(last);
        const auto step = [&](double tau) {
            const double now = slope(tau);
            if (at_last < 0.0 && now >= 0.0) consider(root(slope, last, at_last, tau, now, 0.0));
            last = tau, at_last = now;
        };
        constexpr int points = 24;
        for (int i = 1; i < points; ++i) step(first.tau + (top_ - first.tau) * i / points);
        // With much noise the minimum is close to the edge, on the scale of the teacher.
        while (at_last < 0.0 && top_ - last > 1e-13 * top_) step(top_ - 0.25 * (top_ - last));
        const double nothing = 2.0 * y_.second;
        if (nothing < found.risk) found = {top_, nothing, true};
        return found;
    }

    double best_excess(double log_s) {
        widen(std::exp(log_s));
        return balance(best().risk);
    }

    // D and log((R + Delta)/(4 D sigma^2)) for tau = 0.
    double all_kept() { return tails(0.0).force1; }
    double unspent() {
        const Kept at = keep_at(0.0);
        return std::log(std::max(risk(at) + set_.noise, 1e-300) / (4.0 * response(at) * s_));
    }

    Fixed fixed(const Kept& at, double alpha, bool stable) const {
        const Tails& t = at.tails;
        const double lam = set_.ridge, D = response(at), R = risk(at);
        const double trace = t.first - at.tau * t.mass;
        Fixed f;
        f.alpha = alpha;
        f.risk = R;
        f.sigma2 = s_;
        f.threshold = at.tau;
        f.c = lam > 0.0 ? lam / at.tau : at.tau > 0.0 ? 0.0 : 1.0 - D / alpha;
        f.train = f.c * f.c * (R + set_.noise);
        f.rank = t.mass;
        f.trace = trace;
        f.overlap = y_.second + s_ - t.low2 - at.tau * t.first - 2.0 * s_ * D;
        f.objective = f.train / 8.0 + 0.5 * lam * trace;
        f.stable = stable;
        f.residual_sigma2 = (R + set_.noise) / (4.0 * alpha * s_) - 1.0;
        f.residual_c = f.c - 1.0 + D / alpha;
        return f;
    }

    Spread& y_;
    Setting set_;
    double s_ = 0.0, top_ = 0.0, edge_ = -INF;

  private:
    bool cut_known_ = false;
    Tails at_edge_{};
    double guess_ = 1.0;  // last tau/sigma
};

// Positions on either side of every sign change of f between the points of a grid, with local
// extrema that may cross 0 between two of them resolved.
struct Bracket {
    double a, fa, b, fb;
};

template <class F>
std::vector<Bracket> brackets(F&& f, const std::vector<double>& grid, bool first_only = false) {
    std::vector<Bracket> found;
    std::vector<std::pair<double, double>> known;  // position and value
    const auto step = [&](double x, double fx) {
        if (!known.empty() && (known.back().second > 0.0) != (fx > 0.0))
            found.push_back({known.back().first, known.back().second, x, fx});
        known.emplace_back(x, fx);
    };
    double last[3] = {}, at[3] = {};
    for (std::size_t i = 0; i < grid.size(); ++i) {
        last[0] = last[1], last[1] = last[2], at[0] = at[1], at[1] = at[2];
        at[2] = grid[i];
        last[2] = f(grid[i]);
        if (i >= 2) {
            const double sign = last[1] > 0.0 ? 1.0 : -1.0;
            const double left = sign * last[0], middle = sign * last[1], right = sign * last[2];
            if (middle > 0.0 && middle <= left && middle <= right &&
                middle < 2.0 * (left + right - 2.0 * middle)) {
                const auto [x, value] = minimum([&](double x) { return sign * f(x); }, at[0], at[1],
                                                at[2], middle, 1e-7 * (at[2] - at[0]));
                if (value <= 0.0) {
                    // Put it in its place among the last two points.
                    if (x < at[1]) {
                        known.pop_back();
                        step(x, sign * value);
                        step(at[1], last[1]);
                    } else {
                        step(x, sign * value);
                    }
                }
            }
        }
        step(grid[i], last[2]);
        if (first_only && !found.empty()) break;
    }
    return found;
}

template <class F>
double solve(F&& f, const Bracket& in) {
    return root(f, in.a, in.fa, in.b, in.fb, 1e-15);
}

std::vector<double> log_grid(double low, double high, double per_decade) {
    const int n = std::max(2, static_cast<int>(std::ceil((high - low) / M_LN10 * per_decade)));
    std::vector<double> grid(n + 1);
    for (int i = 0; i <= n; ++i) grid[i] = low + (high - low) * i / n;
    return grid;
}

// ---- sigma -> 0: the signal is exact, the null block of size 1 - kappa* a semicircle
// ------------------

// Integrals over the standard semicircle above 2 cos(angle) of 1, and with t = 2 cos(other), other
// >= angle, of x - t, (x - t)^2 and x (x - t): sums of positive terms, also where the arc is short.
struct Arc {
    Arc(double angle, double other) {
        const Quadrature& rule = panel_rule();
        for (std::size_t i = 0; i < rule.nodes.size(); ++i) {
            const double at = angle * rule.nodes[i], sine = std::sin(at);
            const double beyond = 4.0 * std::sin(0.5 * (other + at)) * std::sin(0.5 * (other - at));
            const double weight = 2.0 / M_PI * angle * rule.weights[i] * sine * sine;
            mass += weight;
            excess += weight * beyond;
            square += weight * beyond * beyond;
            product += weight * beyond * 2.0 * std::cos(at);
        }
    }
    double mass = 0.0, excess = 0.0, square = 0.0, product = 0.0;
};

double arc_of_mass(double mass) {
    if (mass <= 0.0) return 0.0;
    if (mass >= 1.0) return M_PI;
    return newton(
        [mass](double angle) {
            const double sine = std::sin(angle);
            // By its closed form where that does not cancel.
            const double above =
                angle < 1.0 ? Arc(angle, angle).mass : (angle - sine * std::cos(angle)) / M_PI;
            return std::pair(above - mass, 2.0 * sine * sine / M_PI);
        },
        0.0, M_PI, std::min(std::cbrt(1.5 * M_PI * mass), 0.5 * M_PI), 1e-15);
}

class Recovery {
  public:
    Recovery(double kappa, double rank) : k_(std::min(rank, 1.0)), null_(1.0 - k_) {
        edge_ = null_ > 0.0 && kappa < 1.0 ? arc_of_mass((kappa - k_) / null_) : M_PI;
    }

    // R is 2 sigma^2 psi for tau = t sigma (1 - kappa*)^(1/2), and D = alpha at its minimum, which
    // makes alpha = psi/2 the threshold.
    double psi(double t) const { return psi(t, angle_of(t)); }

    double threshold() const {
        const double angle = lowest();
        return 0.5 * psi(2.0 * std::cos(angle), angle);
    }

    // Rank at the threshold.
    double rank() const { return k_ + null_ * above(lowest()).mass; }

    double rank(double t) const { return k_ + null_ * above(angle_of(t)).mass; }

    double response(double t) const {
        return 0.5 * (k_ * (1.0 + null_) + null_ * null_ * above(angle_of(t)).product);
    }

    // D without a threshold: where lam -> 0+ stops interpolating labels of vanishing noise.
    double all_kept() const { return response(0.0); }

    // t of the limit lam -> 0+ above the threshold.
    double limit(double alpha) const {
        if (null_ == 0.0) return 0.0;
        const double high = 2.0 + std::sqrt(2.0 * alpha / (k_ * null_));
        return newton(
            [&](double t) {
                const double slope = null_ * (k_ * t - null_ * above(angle_of(t)).excess);
                return std::pair(psi(t) - 2.0 * alpha, 2.0 * slope);
            },
            2.0 * std::cos(lowest()), high, high, 1e-15);
    }

  private:
    static double angle_of(double t) { return std::acos(std::min(0.5 * t, 1.0)); }

    Arc above(double angle) const { return Arc(std::min(angle, edge_), angle); }

    double psi(double t, double angle) const {
        return k_ * (1.0 + null_) + k_ * null_ * t * t + null_ * null_ * above(angle).square;
    }

    // Where psi is smallest, as the angle of t.
    double lowest() const {
        if (null_ == 0.0) return 0.5 * M_PI;
        return newton(
            [this](double angle) {
                const Arc arc = above(angle);
                return std::pair(null_ * arc.excess - 2.0 * k_ * std::cos(angle),
                                 2.0 * std::sin(angle) * (null_ * arc.mass + k_));
            },
            0.0, 0.5 * M_PI, std::pow(7.5 * M_PI * k_, 0.2), 1e-15);
    }

    double k_, null_, edge_;
};

}  // namespace

Found long_time(const TeacherLaw& teacher, const Setting& setting) {
    const auto spread = make_spread(teacher);
    Statics statics(*spread, setting);
    const auto excess = [&](double log_s) { return statics.excess(log_s); };
    const double alpha = setting.alpha, noise = setting.noise, lam = setting.ridge;
    const double second = spread->second;
    Found found;
    double low;
    if (noise > 0.0) {
        low = noise / (4.0 * alpha) * 0.99;
    } else if (lam > 0.0) {
        low = 1e-2 * std::min(lam * lam, second) / (1.0 + 2.0 * alpha);
        while (low > 1e-250 && excess(std::log(low)) <= 0.0) low *= 1e-3;
    } else {
        low = spread->vanishing();
        if (excess(std::log(low)) < 0.0) {
            const Recovery limit(setting.kappa, spread->rank);
            const double t = limit.limit(alpha);
            Fixed f{};
            f.alpha = alpha;
            f.c = 1.0 - limit.response(t) / alpha;
            f.rank = limit.rank(t);
            f.trace = spread->mean;
            f.overlap = second;
            f.stable = 1.0;
            found.fixed.push_back(f);
            if (setting.kappa >= 1.0) {
                found.evaluations = spread->evaluations;
                return found;
            }
        }
    }
    double high = 50.0 * (2.0 * second + noise) / (4.0 * alpha);
    while (high < 1e250 && excess(std::log(high)) > 0.0) high *= 10.0;
    std::vector<Bracket> signs;
    if (setting.kappa >= 1.0) {
        const double a = std::log(low), b = std::log(high);
        signs.push_back({a, excess(a), b, excess(b)});
    } else {
        const double knee = std::clamp(1e-6 * second, low, high);
        std::vector<double> grid = log_grid(std::log(low), std::log(knee), 4.0);
        const std::vector<double> upper = log_grid(std::log(knee), std::log(high), 8.0);
        grid.insert(grid.end(), upper.begin() + 1, upper.end());
        signs = brackets(excess, grid);
    }
    for (const Bracket& in : signs) {
        if ((in.fa > 0.0) == (in.fb > 0.0)) {
            found.status = Status::NOT_CONVERGED;
            continue;
        }
        const double log_s = solve(excess, in);
        if (!(std::abs(excess(log_s)) <= RESIDUAL)) {
            found.status = Status::NOT_CONVERGED;
            continue;
        }
        statics.widen(std::exp(log_s));
        found.fixed.push_back(statics.fixed(statics.keep(), alpha, in.fa > 0.0));
    }
    if (found.fixed.empty()) found.status = Status::NOT_CONVERGED;
    found.evaluations = spread->evaluations;
    return found;
}

Found curve(const TeacherLaw& teacher, const Setting& setting, const std::vector<double>& sigma2) {
    const auto spread = make_spread(teacher);
    const double lam = setting.ridge;
    Found found;
    for (const double s : sigma2) {
        Statics statics(*spread, setting);
        statics.widen(s);
        const double top = statics.top_;
        std::vector<double> taus;
        if (lam >= top) {
            taus.push_back(lam);
        } else {
            const auto mismatch = [&](double tau) { return statics.mismatch(tau); };
            const double low = lam > 0.0 ? lam : 1e-6 * top;
            std::vector<double> grid = log_grid(std::log(low), std::log(top), 12.0);
            for (double& tau : grid) tau = std::exp(tau);
            grid.front() = lam;
            grid.back() = top;
            for (int i = 1; i < 40; ++i) grid.push_back(lam + (top - lam) * i / 40);
            if (statics.edge_ > lam && statics.edge_ < top) grid.push_back(statics.edge_);
            std::sort(grid.begin(), grid.end());
            // For lam > 0 it is positive there; tau is lam to rounding where it is not.
            if (mismatch(lam) <= 0.0) taus.push_back(lam);
            for (const Bracket& in : brackets(mismatch, grid)) {
                const double tau = solve(mismatch, in);
                if (tau > 0.0) taus.push_back(tau);
            }
        }
        for (const double tau : taus) {
            const Fixed f = statics.with_alpha(tau);
            if (f.alpha > 0.0 && f.alpha < INF)
                found.fixed.push_back(f);
            else
                found.status = Status::NOT_CONVERGED;
        }
        if (taus.empty()) found.status = Status::NOT_CONVERGED;
    }
    found.evaluations = spread->evaluations;
    return found;
}

double optimal_ridge(const TeacherLaw& teacher, const Setting& setting) {
    const auto spread = make_spread(teacher);
    Statics statics(*spread, setting);
    const auto excess = [&](double log_s) { return statics.best_excess(log_s); };
    double low = setting.noise / (4.0 * setting.alpha) * 0.99;
    if (setting.noise == 0.0) {
        low = spread->vanishing();
        if (excess(std::log(low)) < 0.0) return 0.0;
    }
    double high = 50.0 * (2.0 * spread->second + setting.noise) / (4.0 * setting.alpha);
    while (high < 1e250 && excess(std::log(high)) > 0.0) high *= 10.0;
    const double per_decade = setting.noise > 0.0 ? 8.0 : 4.0;
    const std::vector<Bracket> signs =
        brackets(excess, log_grid(std::log(low), std::log(high), per_decade), true);
    if (signs.empty()) return NaN;
    const double log_s = solve(excess, signs.front());
    if (!(std::abs(excess(log_s)) <= RESIDUAL)) return NaN;
    const Statics::Best best = statics.best();
    if (!best.inside) return 0.0;
    if (best.tau >= statics.top_) return statics.top_ * (1.0 + 1e-15);
    const Kept kept = statics.keep_at(best.tau);
    return kept.tau * (1.0 - Statics::response(kept) / setting.alpha);
}

double bayes_risk(double alpha, double ratio, double scale, double noise) {
    RationalSpread spread(ratio, scale, 0.0);
    const auto risk = [&](double s) {
        spread.widen(s);
        return 2.0 * spread.least_error();
    };
    const auto excess = [&](double log_s) {
        const double s = std::exp(log_s);
        return std::log((std::max(risk(s), 0.0) + noise) / (4.0 * alpha * s));
    };
    double low = std::log(noise > 0.0 ? 0.99 * noise / (4.0 * alpha) : spread.vanishing());
    double f_low = excess(low);
    if (noise == 0.0 && f_low <= 0.0) return 0.0;
    double high = std::log(2.0 * (2.0 * spread.second + noise) / (4.0 * alpha));
    double f_high = excess(high);
    return risk(std::exp(root(excess, low, f_low, high, f_high, 1e-15)));
}

double recovery_threshold(double kappa, double ratio) {
    if (kappa < std::min(ratio, 1.0)) return INF;
    const Recovery limit(kappa, ratio);
    return limit.threshold();
}

double interpolation_threshold(double kappa, double ratio, double noise) {
    if (noise == 0.0 && kappa >= std::min(ratio, 1.0)) return Recovery(kappa, ratio).all_kept();
    RationalSpread spread(ratio, 1.0, 0.0);
    Statics statics(spread, {0.0, kappa, noise, 0.0});
    // Without a threshold R + Delta = 4 alpha sigma^2 for alpha = D.
    const auto unspent = [&](double log_s) {
        statics.widen(std::exp(log_s));
        return statics.unspent();
    };
    double low = std::log(noise > 0.0 ? 0.5 * noise : spread.vanishing());
    double f_low = unspent(low), high = low, f_high = f_low;
    while (f_high > 0.0 && high < 600.0) {
        low = high, f_low = f_high;
        high += 1.0;
        f_high = unspent(high);
    }
    statics.widen(std::exp(root(unspent, low, f_low, high, f_high, 1e-15)));
    return statics.all_kept();
}

double saturation_width(double ratio) {
    const Recovery limit(1.0, ratio);
    return limit.rank();
}

}  // namespace overparam::empirical_flow
