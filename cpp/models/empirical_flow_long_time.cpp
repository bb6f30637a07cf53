#include <algorithm>
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
    double mean, second;  // moments of the teacher
    double rank;          // its mass off 0
    Index evaluations = 0;
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
    RationalSpread(double ratio, double scale) : k_(ratio), a_(scale) {
        mean = a_;
        second = a_ * a_ * (1.0 + 1.0 / k_);
        rank = std::min(k_, 1.0);
    }

    void widen(double variance) override {
        sigma_ = std::sqrt(variance);
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

    double quantile(double mass) override {
        if (gap_ && std::abs(mass - k_) < EQUAL_RANKS) {
            quantile_ = b_ + 1.0;
            return sigma_ * lower_bulk_;
        }
        double low = low_, high = top_;
        if (gap_ && mass < k_) low = lower_bulk_;
        if (gap_ && mass > k_) high = std::min(lower_bulk_, 2.0);
        const auto missing = [&](double x) {
            const Complex g = locate(x);
            return std::pair(mass - mass_above(g), g.imag() / M_PI);
        };
        guess_ = newton(missing, low, high, guess_, 1e-15);
        quantile_ = locate(guess_);
        return sigma_ * guess_;
    }

    Tails above_quantile() override {
        outside_ = 0;
        return integrals(quantile_);
    }

    Tails above(double x) override { return integrals(locate(x / sigma_)); }

  private:
    Tails integrals(Complex g) {
        ++evaluations;
        if (outside_ > 0) return {0.0, 0.0, 0.0, 0.0, second + sigma_ * sigma_};
        if (outside_ < 0) return {1.0, mean, 0.0, 0.5, 0.0};
        const double s = sigma_ * sigma_, mass = mass_above(g);
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
                    sums.gg_z.imag() / (2.0 * M_PI), second + s - s * sums.g_z2.imag() / M_PI};
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

    // The Cauchy transform at real x, from the upper side of its branch: Im g = pi rho >= 0.
    Complex locate(double x) {
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
        outside_ = 0;
        if (square > 0.0) return {half, std::sqrt(square)};
        double far = half + std::copysign(std::sqrt(-square), half), near = product / far;
        if (far > b_) {
            double roots[3] = {g, far, near};
            std::sort(roots, roots + 3);
            return {roots[1], 0.0};
        }
        outside_ = far > 0.0 ? 1 : -1;
        return {near, 0.0};
    }

    double mass_above(Complex g) const {
        if (outside_ != 0) return outside_ > 0 ? 0.0 : 1.0;
        const double x = g.real(), y = g.imag(), left = b_ - x;
        const double angles = std::atan2(y, x) + k_ * std::atan2(y, left);
        return (angles - x * y - k_ * b_ * y / (left * left + y * y)) / M_PI;
    }

    double k_, a_, sigma_ = 0.0, b_ = 0.0;
    double top_ = 0.0, low_ = 0.0, lower_bulk_ = 0.0;  // edges; that of the upper bulk if gap_
    double guess_ = 0.0;                               // last quantile
    Complex quantile_;                                 // and the transform there
    bool gap_ = false;
    int outside_ = 0;  // +1: the last position was above the law, -1: below
};

std::unique_ptr<Spread> make_spread(const TeacherLaw& teacher) {
    return std::make_unique<RationalSpread>(teacher.ratio, teacher.scale);
}

// ---- the equations
// ---------------------------------------------------------------------------------

// tau and the integrals that belong to it, at one sigma^2 and alpha.
struct Kept {
    double tau;
    Tails tails;
};

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
        const auto at = [this](double tau) { return Kept{tau, tails(tau)}; };
        if (lam >= top_) return at(lam);
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
            const Kept zero = at(0.0);
            if (response(zero) <= alpha) return zero;
        }
        const double tau = newton(
            [&](double tau) {
                const Kept now = at(tau);
                return std::pair(1.0 - response(now) / alpha - lam / tau,
                                 now.tails.force0 / alpha + lam / (tau * tau));
            },
            low, top_, guess_ * std::sqrt(s_), 1e-8);
        guess_ = tau / std::sqrt(s_);
        return at(tau);
    }

    // Logarithm of (R + Delta)/(4 alpha sigma^2): falls through 0 at a stable solution.
    double excess(double log_s) {
        widen(std::exp(log_s));
        return balance(risk(keep()));
    }

    double balance(double risk) const {
        return std::log(std::max(risk + set_.noise, 1e-300) / (4.0 * set_.alpha * s_));
    }

    // D and log((R + Delta)/(4 D sigma^2)) for tau = 0.
    double all_kept() { return tails(0.0).force1; }
    double unspent() {
        const Kept at{0.0, tails(0.0)};
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

// Integrals of 1, x and x^2 over the standard semicircle above 2 cos(angle).
struct Arc {
    explicit Arc(double angle)
        : mass((angle - std::sin(angle) * std::cos(angle)) / M_PI),
          first(4.0 * std::pow(std::sin(angle), 3) / (3.0 * M_PI)),
          second((angle - 0.25 * std::sin(4.0 * angle)) / M_PI) {}
    double mass, first, second;
};

double arc_of_mass(double mass) {
    if (mass <= 0.0) return 0.0;
    if (mass >= 1.0) return M_PI;
    return newton(
        [mass](double angle) {
            const double sine = std::sin(angle);
            // angle - sin cos without its cancellation
            const double x = 2.0 * angle,
                         small =
                             x * x * x / 12.0 *
                             (1.0 - x * x / 20.0 *
                                        (1.0 - x * x / 42.0 *
                                                   (1.0 - x * x / 72.0 * (1.0 - x * x / 110.0))));
            const double arc = angle < 0.3 ? small : angle - sine * std::cos(angle);
            return std::pair(arc / M_PI - mass, 2.0 * sine * sine / M_PI);
        },
        0.0, M_PI, std::min(std::cbrt(1.5 * M_PI * mass), 0.5 * M_PI), 1e-15);
}

class Recovery {
  public:
    Recovery(double kappa, double rank) : k_(std::min(rank, 1.0)), null_(1.0 - k_) {
        edge_ = null_ > 0.0 && kappa < 1.0 ? arc_of_mass((kappa - k_) / null_) : M_PI;
    }

    // sigma^2 -> R is 2 sigma^2 psi(t) for tau = t sigma (1 - kappa*)^(1/2), and D = alpha at its
    // minimum: the threshold is that of alpha = psi/2.
    double psi(double t) const {
        const Arc arc = above(t);
        return 1.0 - null_ * null_ + k_ * null_ * t * t +
               null_ * null_ * (arc.second - 2.0 * t * arc.first + t * t * arc.mass);
    }

    double half_slope(double t) const {
        const Arc arc = above(t);
        return null_ * (k_ * t - null_ * (arc.first - t * arc.mass));
    }

    double half_bend(double t) const { return null_ * (k_ + null_ * above(t).mass); }

    double response(double t) const {
        const Arc arc = above(t);
        return 0.5 * (1.0 - null_ * null_ + null_ * null_ * (arc.second - t * arc.first));
    }

    // D without a threshold: where lam -> 0+ stops interpolating labels of vanishing noise.
    double all_kept() const {
        return 0.5 *
               (1.0 - null_ * null_ + null_ * null_ * Arc(std::min(0.5 * M_PI, edge_)).second);
    }

    double rank(double t) const { return k_ + null_ * above(t).mass; }

    double lowest() const {
        if (null_ == 0.0) return 0.0;
        return newton([this](double t) { return std::pair(half_slope(t), half_bend(t)); }, 0.0, 2.0,
                      1.0, 1e-15);
    }

    // t of the limit lam -> 0+ above the threshold.
    double limit(double alpha) const {
        if (null_ == 0.0) return 0.0;
        const double low = lowest(), high = 2.0 + std::sqrt(2.0 * alpha / (k_ * null_));
        return newton(
            [&](double t) { return std::pair(psi(t) - 2.0 * alpha, 2.0 * half_slope(t)); }, low,
            high, high, 1e-15);
    }

  private:
    Arc above(double t) const { return Arc(std::min(std::acos(std::min(0.5 * t, 1.0)), edge_)); }

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
        low = 1e-22 * second;
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
        statics.widen(std::exp(solve(excess, in)));
        found.fixed.push_back(statics.fixed(statics.keep(), alpha, in.fa > 0.0));
    }
    if (found.fixed.empty()) found.status = Status::NOT_CONVERGED;
    found.evaluations = spread->evaluations;
    return found;
}

double recovery_threshold(double kappa, double ratio) {
    if (kappa < std::min(ratio, 1.0)) return INF;
    const Recovery limit(kappa, ratio);
    return 0.5 * limit.psi(limit.lowest());
}

double interpolation_threshold(double kappa, double ratio, double noise) {
    if (noise == 0.0 && kappa >= std::min(ratio, 1.0)) return Recovery(kappa, ratio).all_kept();
    RationalSpread spread(ratio, 1.0);
    Statics statics(spread, {0.0, kappa, noise, 0.0});
    // Without a threshold R + Delta = 4 alpha sigma^2 for alpha = D.
    const auto unspent = [&](double log_s) {
        statics.widen(std::exp(log_s));
        return statics.unspent();
    };
    double low = std::log(0.5 * noise), f_low = unspent(low), high = low, f_high = f_low;
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
    return limit.rank(limit.lowest());
}

}  // namespace overparam::empirical_flow
