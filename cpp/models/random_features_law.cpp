// The law of the learning curve: docs/papers/random_features.md, sections 5 to 7.
#include <algorithm>
#include <cmath>
#include <complex>
#include <limits>
#include <numeric>
#include <utility>

#include "math/gauss.hpp"
#include "math/roots.hpp"
#include "math/talbot.hpp"
#include "models/random_features.hpp"

namespace overparam::random_features {

namespace {

using Complex = std::complex<double>;

// Groups are dropped to the tail as long as their energy times eigenvalue is below this fraction of
// the whole energy times the smallest nu of interest.
constexpr double NEGLIGIBLE = 1e-14;
// Nodes that replace the groups in an interval of log eigenvalue of this length, where they are
// many more.
constexpr int NODES = 12;
constexpr double INTERVAL = 3.0;
// A pole closer to 0 than this over the last time needs no shift of the contour.
constexpr double SMALL_POLE = 1e-9;
// Times, in units of 1/(2 eta K), after which everything has relaxed, and, over the largest
// eigenvalue possible, before which nothing has.
constexpr double FARTHEST = 1e100, NEAREST = 1e-20;
// Relative change after which one more step of Newton's method is exact, its largest number of
// steps, and that of the steps of a path.
constexpr double ALMOST = 1e-8;
constexpr int MAX_STEPS = 40, MAX_PATH = 1000;
// Longest step of a path in log z: beyond it, extrapolation leads to other solutions.
constexpr double LONGEST_STEP = 3.0;

double total(const std::vector<double>& x) {
    double sum = 0.0;
    for (const double value : x) sum += value;
    return sum;
}

// The sums over groups that the equations consist of, at real nu > 0.
struct Sums {
    double share;      // nu d(nu)
    double curvature;  // sum energy eigenvalue/(eigenvalue + nu)^2
    double risk;       // 2 eps_min
};

Sums sums(const Modes& m, double nu) {
    Sums s{m.tail, 0.0, m.rest};
    for (std::size_t i = 0; i < m.eigenvalue.size(); ++i) {
        const double inverse = 1.0 / (m.eigenvalue[i] + nu), part = nu * inverse;
        s.share += m.energy[i] * part;
        s.curvature += m.energy[i] * m.eigenvalue[i] * inverse * inverse;
        s.risk += m.teacher[i] * part;
    }
    return s;
}

// The real solution of nu - nu d(nu)/K = z >= 0.
double real_nu(const Modes& m, double width, double z) {
    const double all = m.tail + total(m.energy);
    if (z == 0.0 && m.tail == 0.0 && width >= total(m.multiplicity)) return 0.0;
    // In log nu: the function over nu, (1 - d/K) - z/nu, increases.
    const auto f = [&](double log_nu) {
        const double nu = std::exp(log_nu);
        const Sums s = sums(m, nu);
        const double value = 1.0 - s.share / (nu * width) - z / nu;
        const double slope = (s.share / nu - s.curvature) / width + z / nu;
        return std::pair(value, slope);
    };
    const double high = std::log((z + all / width) * (1.0 + 1e-12));
    double low = z > 0.0 || m.tail > 0.0 ? std::log(z + m.tail / width) - 1e-12 : high - 1.0;
    // No tail: downwards until the sign changes, or to where nothing is resolved any more.
    for (double step = 1.0; f(low).first > 0.0; step *= 2.0) {
        if (low < -700.0) return 0.0;
        low -= step;
    }
    return std::exp(newton_within(f, low, high, 0.5 * (low + high),
                                  [](double x) { return 4e-16 * (1.0 + std::abs(x)); }));
}

// nu(z), and what the Laplace transforms are made of, on paths in the upper half plane.
class Resolvent {
  public:
    Resolvent(const Modes& modes, const Training& training, double smallest)
        : m_(modes), training_(training) {
        m_.eigenvalue.clear(), m_.multiplicity.clear(), m_.energy.clear(), m_.teacher.clear();
        std::vector<std::size_t> order(modes.eigenvalue.size());
        std::iota(order.begin(), order.end(), std::size_t{0});
        std::sort(order.begin(), order.end(), [&](std::size_t i, std::size_t j) {
            return modes.eigenvalue[i] > modes.eigenvalue[j];
        });
        // Groups of negligible eigenvalue, from the lowest, become tail.
        const double bound = NEGLIGIBLE * smallest * (modes.tail + total(modes.energy));
        double dropped = 0.0;
        while (!order.empty()) {
            const std::size_t i = order.back();
            dropped += modes.energy[i] * modes.eigenvalue[i];
            if (dropped > bound) break;
            m_.tail += modes.energy[i];
            m_.rest += modes.teacher[i];
            order.pop_back();
        }
        // The others in intervals of log eigenvalue, on which all functions are smooth.
        for (std::size_t first = 0, next; first < order.size(); first = next) {
            const double least = modes.eigenvalue[order[first]] * std::exp(-INTERVAL);
            std::vector<double> place, energy, teacher;
            for (next = first; next < order.size() && modes.eigenvalue[order[next]] >= least;
                 ++next) {
                place.push_back(std::log(modes.eigenvalue[order[next]]));
                energy.push_back(modes.energy[order[next]]);
                teacher.push_back(modes.teacher[order[next]]);
            }
            if (place.size() <= 3 * std::size_t{NODES}) {
                for (std::size_t i = first; i < next; ++i)
                    add(modes.eigenvalue[order[i]], energy[i - first], teacher[i - first]);
                continue;
            }
            const Quadrature rule = gauss_rule(place, energy, NODES);
            const double share = total(teacher) / total(energy);
            bool alike = true;
            for (std::size_t i = 0; i < place.size(); ++i)
                alike &= std::abs(teacher[i] - share * energy[i]) <= 1e-12 * share * energy[i];
            for (int i = 0; i < NODES; ++i)
                add(std::exp(rule.nodes[i]), rule.weights[i],
                    alike ? share * rule.weights[i] : 0.0);
            if (!alike) {
                const Quadrature other = gauss_rule(place, teacher, NODES);
                for (int i = 0; i < NODES; ++i)
                    add(std::exp(other.nodes[i]), 0.0, other.weights[i]);
            }
        }
    }

    // Solves for nu at z in the upper half plane, given the solution at another point or on the
    // positive axis, from which it goes there in as many steps as it needs. NaN if it fails.
    Complex solve(Complex z, Complex from, Complex nu) const {
        double left = 1.0;  // of the way, in log z
        const Complex way = std::log(z / from);
        const double longest = LONGEST_STEP / std::abs(way);
        double step = longest;
        Complex at = from;
        for (int attempt = 0; attempt < MAX_PATH && left > 0.0; ++attempt) {
            const bool last = step >= left;
            const Complex next = last ? z : from * std::exp((1.0 - left + step) * way);
            Complex guess = nu * std::exp(logarithmic_slope(at, nu) * std::log(next / at));
            if (newton(next, guess)) {
                nu = guess;
                at = next;
                left = last ? 0.0 : left - step;
                step = std::min(2.0 * step, longest);
            } else {
                step = 0.5 * std::min(step, left);
            }
        }
        return left > 0.0 ? Complex(std::numeric_limits<double>::quiet_NaN()) : nu;
    }

    double solve(double z) const { return real_nu(m_, training_.width, z); }

    // The transform of S at z = p/(2 eta K) with its nu.
    Complex transform(Complex z, Complex nu) const {
        const double scale = 2.0 * training_.lr * training_.width;
        const Parts s = parts(nu);
        Complex R = (s.risk + (training_.flow ? 0.0 : training_.noise_var)) / z +
                    training_.init_var * s.share / nu;
        R /= scale;
        return training_.flow ? R : R / (1.0 - feedback(s, nu));
    }

    // k^(p), p = 2 eta K z, of which 1 is a pole of the transform.
    double feedback(double z) const {
        const Complex nu(solve(z));
        return feedback(parts(nu), nu).real();
    }

  private:
    void add(double eigenvalue, double energy, double teacher) {
        m_.eigenvalue.push_back(eigenvalue);
        m_.energy.push_back(energy);
        m_.teacher.push_back(teacher);
    }

    struct Parts {
        Complex share, learned, curvature, risk;
    };

    Parts parts(Complex nu) const {
        const double x = nu.real(), y = nu.imag();
        // Sums of energy nu/(eigenvalue + nu), energy eigenvalue/(eigenvalue + nu), energy
        // eigenvalue/(eigenvalue + nu)^2 and teacher nu/(eigenvalue + nu), by real and imaginary
        // parts.
        double share_re = 0.0, share_im = 0.0, learned_re = 0.0, learned_im = 0.0, curve_re = 0.0,
               curve_im = 0.0, risk_re = 0.0, risk_im = 0.0;
        for (std::size_t i = 0; i < m_.eigenvalue.size(); ++i) {
            const double e = m_.eigenvalue[i], u = e + x, inverse = 1.0 / (u * u + y * y);
            const double re = u * inverse, im = -y * inverse;  // of 1/(e + nu)
            const double part_re = (x * u + y * y) * inverse, part_im = e * y * inverse;
            const double moved = m_.energy[i] * e;
            share_re += m_.energy[i] * part_re;
            share_im += m_.energy[i] * part_im;
            learned_re += moved * re;
            learned_im += moved * im;
            curve_re += moved * (re * re - im * im);
            curve_im += moved * (2.0 * re * im);
            risk_re += m_.teacher[i] * part_re;
            risk_im += m_.teacher[i] * part_im;
        }
        return {{m_.tail + share_re, share_im},
                {learned_re, learned_im},
                {curve_re, curve_im},
                {m_.rest + risk_re, risk_im}};
    }

    // (eta/2) [sum energy (eigenvalue + nu - z)/(eigenvalue + nu) + tail (nu - z)/nu], in which
    // nu - z = share/K.
    Complex feedback(const Parts& s, Complex nu) const {
        const Complex gap = s.share / training_.width;
        return 0.5 * training_.lr * (m_.mean + s.learned + gap * s.share / nu);
    }

    // d log nu/d log z.
    Complex logarithmic_slope(Complex z, Complex nu) const {
        return z / (nu * (1.0 - parts(nu).curvature / training_.width));
    }

    // Newton's method with damping for nu - share/K = z; false if it does not find the solution in
    // the upper half plane.
    bool newton(Complex z, Complex& nu) const {
        Parts s = parts(nu);
        Complex residual = nu - s.share / training_.width - z;
        for (int step = 0; step < MAX_STEPS; ++step) {
            const Complex change = residual / (1.0 - s.curvature / training_.width);
            double damping = 1.0;
            Complex next;
            for (;; damping *= 0.5) {
                if (damping < 1e-3) return false;
                next = nu - damping * change;
                if (!(next.imag() > 0.0)) continue;
                const Parts at = parts(next);
                const Complex value = next - at.share / training_.width - z;
                // Near the solution the residual is rounding.
                if (std::abs(value) <= std::abs(residual) ||
                    std::abs(change) < 1e-10 * std::abs(nu)) {
                    s = at;
                    residual = value;
                    break;
                }
            }
            nu = next;
            if (damping == 1.0 && std::abs(change) <= ALMOST * std::abs(nu)) {
                nu -= residual / (1.0 - s.curvature / training_.width);
                return true;
            }
        }
        return false;
    }

    Modes m_;
    Training training_;
};

}  // namespace

double minimal(const Modes& modes, double width) {
    return sums(modes, real_nu(modes, width, 0.0)).risk;
}

double width_for(const Modes& modes, double tol) {
    const double goal = tol * (modes.rest + total(modes.teacher));
    const auto f = [&](double log_nu) {
        const double nu = std::exp(log_nu);
        const Sums s = sums(modes, nu);
        return std::pair(s.share / goal - 1.0, nu * s.curvature / goal);
    };
    double high = 0.0, low = 0.0;
    while (f(high).first < 0.0) high += 2.0;
    while (f(low).first > 0.0 && low > -700.0) low -= 2.0;
    const double nu = std::exp(newton_within(f, low, high, 0.5 * (low + high),
                                             [](double x) { return 4e-16 * (1.0 + std::abs(x)); }));
    return goal / nu;
}

std::vector<double> learning_curve(const Modes& modes, const Training& training,
                                   const std::vector<double>& t) {
    const double scale = 2.0 * training.lr * training.width;
    const double noise = training.flow ? 0.0 : training.noise_var;
    const double mean = training.flow ? 0.0 : 0.5 * training.lr * modes.mean;
    std::vector<double> risk(t.size());
    // The mean mode that is in no group is stable only below this; it relaxes, or grows, at once.
    if (mean >= 1.0) {
        std::fill(risk.begin(), risk.end(), std::numeric_limits<double>::infinity());
        return risk;
    }
    const double start =
        modes.rest + total(modes.teacher) + training.init_var * (modes.tail + total(modes.energy));
    const Talbot talbot;
    // No time is farther than this, where every mode that can be resolved has relaxed.
    const double farthest = FARTHEST / scale, last = std::min(t.back(), farthest);
    // Before this time nothing has happened yet.
    const double all = modes.tail + total(modes.energy);
    const double nearest = NEAREST / (scale * all * (1.0 + 1.0 / training.width));
    if (last <= nearest) {
        std::fill(risk.begin(), risk.end(), (start + noise) / (1.0 - mean) - noise);
        return risk;
    }
    const double smallest = 1.0 / (scale * last);
    const Resolvent resolvent(modes, training,
                              std::max(real_nu(modes, training.width, 0.0), smallest));
    // Above the limit of stability the transform has a pole p > 0: the contour is shifted by it.
    double shift = 0.0;
    if (!training.flow) {
        const auto excess = [&](double log_z) { return resolvent.feedback(std::exp(log_z)) - 1.0; };
        double low = std::log(SMALL_POLE * smallest), below = excess(low);
        if (below > 0.0) {
            double high = std::log(smallest), above;
            while ((above = excess(high)) > 0.0) low = high, below = above, high += 2.0;
            shift = std::exp(root(excess, low, below, high, above, 1e-15));
        }
    }
    // The solution at each node for one time begins that for the next.
    std::vector<Complex> z(talbot.nodes.size()), nu(talbot.nodes.size());
    bool begun = false;
    for (std::size_t i = 0; i < t.size(); ++i) {
        if (t[i] <= nearest) {
            risk[i] = (start + noise) / (1.0 - mean) - noise;
            continue;
        }
        const double time = std::min(t[i], farthest);
        double sum = 0.0;
        for (std::size_t j = 0; j < talbot.nodes.size(); ++j) {
            const Complex target = talbot.nodes[j] / (scale * time) + shift;
            if (j == 0)
                nu[j] = resolvent.solve(target.real());
            else
                nu[j] = begun ? resolvent.solve(target, z[j], nu[j])
                              : resolvent.solve(target, z[j - 1], nu[j - 1]);
            z[j] = target;
            sum += std::real(talbot.weights[j] * resolvent.transform(target, nu[j]));
        }
        begun = true;
        risk[i] = sum / time * std::exp(shift * scale * t[i]) - noise;
    }
    return risk;
}

}  // namespace overparam::random_features
