#include <Eigen/Dense>
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>
#include <vector>

#include "models/population_flow.hpp"
#include "models/population_flow_shared.hpp"

namespace overparam::population_flow {

namespace {

using Eigen::ArrayXd;

// Changes of log b in Newton's method: the last one, and one that is not to be trusted.
constexpr double CLOSE = 1e-9, FAR = 10.0;
// Where both sides are as good as equal to the rank in reach, at the end of the range of numbers.
constexpr double TINY = 1e-280;
// Ranks that agree to this count as equal.
constexpr double SAME = 1e-12;

// Free S0 and teacher: every observable follows from (1/d) log det(I + 2 S0 K), the extremum of
// E log(1 + a S0) + E log(1 + 2 b K) - log(1 + a b) over two scalars a and b.
class LimitFlow : public OdeSystem {
  public:
    LimitFlow(const Measure& student, const Measure& teacher, double kappa_d, double lam)
        : kappa_d_(kappa_d), lam_(lam), hard_(std::isinf(kappa_d)) {
        const auto array = [](const std::vector<double>& v) {
            return ArrayXd(Eigen::Map<const ArrayXd>(v.data(), static_cast<Index>(v.size())));
        };
        s0_ = array(student.nodes);
        rho_ = array(student.weights);
        mu_ = array(teacher.nodes);
        pi_ = array(teacher.weights);
        mean0_ = (rho_ * s0_).sum();
        target_ = (pi_ * mu_).sum();
        for (ArrayXd* a : {&null_, &grown_, &w_, &u_, &L_, &N_, &S_, &A_}) a->resize(mu_.size());
        share_.resize(s0_.size());
        // The largest eigenvalues, as many as the student has the rank to learn. log b follows
        // -2 tau times the last of them.
        std::vector<Index> order(mu_.size());
        std::iota(order.begin(), order.end(), 0);
        std::sort(order.begin(), order.end(), [&](Index i, Index j) { return mu_(i) > mu_(j); });
        in_reach_ = ArrayXd::Zero(mu_.size());
        spare_ = (s0_ > 0.0).select(rho_, 0.0).sum();
        for (Index i : order) {
            last_ = mu_(i);
            in_reach_(i) = 1.0;
            spare_ -= pi_(i);
            if (spare_ <= SAME) break;
        }
        if (std::abs(spare_) <= SAME) spare_ = 0.0;
        reach_ = (pi_ * in_reach_).sum();
    }

    // tau, sigma, then per teacher node y = k / (1 + e^2) and p = y - L / (2 mu).
    Index size() const override { return 2 + 2 * mu_.size(); }
    Index observed_size() const override { return FIELDS + 2 * mu_.size(); }
    bool implicit() const override { return true; }

    std::vector<double> start() const {
        std::vector<double> y(size(), 0.0);
        // The hard constraint rescales S0 at once.
        y[1] = hard_ ? 0.5 * std::log(mean0_ / target_) : 0.0;
        const double L = 1.0 / (1.0 + std::exp(2.0 * y[1]));
        for (Index i = 0; i < mu_.size(); ++i) {
            y[2 + mu_.size() + i] = mu_(i) > 0.0 ? -0.5 * L / mu_(i) : 0.0;
        }
        return y;
    }

    void rhs(const double* y, double* dy) override {
        evaluate(y);
        const Index n = mu_.size();
        dy[0] = 1.0;
        dy[1] = s_;
        for (Index i = 0; i < n; ++i) {
            const double grown = y[2 + i], rest = y[2 + n + i];
            dy[2 + i] = L_(i) * (1.0 - 2.0 * (mu_(i) - s_) * grown);
            dy[2 + n + i] =
                mu_(i) > 0.0 ? defect_rate(L_(i), N_(i), s_, mu_(i), 0.0, grown, rest) : 0.0;
        }
    }

    void observe(const double* y, double* out) override {
        evaluate(y);
        const Index n = mu_.size();
        const double distance2 = (pi_ * A_ * A_).sum() + beside_;
        out[DISTANCE2] = distance2;
        out[LOSS] = hard_ ? distance2 : distance2 + kappa_d_ * deviation_ * deviation_;
        out[TRACE] = target_ + deviation_;
        out[OVERLAP] = (pi_ * mu_ * S_).sum();
        out[SHIFT] = s_;
        out[SHIFT_INTEGRAL] = y[1];
        Eigen::Map<ArrayXd>(out + FIELDS, n) = 2.0 * (y[0] * mu_ - y[1]);
        Eigen::Map<ArrayXd>(out + FIELDS + n, n) = Eigen::Map<const ArrayXd>(y + 2, n);
    }

  private:
    // Both sides of the scalar equation at log_b_: with t = 2 b k/(1 + 2 b k) = 1 - u and the
    // student's alpha = a S0/(1 + a S0), E t = p = E alpha. `mixed` and `side` are p (1 - p) less
    // the variance of t and of alpha, `spread` is the latter.
    struct Balance {
        double p = 0.0, left = 1.0, mixed = 0.0, side = 0.0, spread = 0.0;
        double excess = 0.0;  // E alpha - p
    };

    Balance sides() {
        Balance v;
        v.left = 0.0;
        double missing = 0.0;  // of p to the rank in reach
        for (Index i = 0; i < mu_.size(); ++i) {
            w_(i) = std::exp(null_(i) - log_b_);
            const double twice = 2.0 * grown_(i), scale = 1.0 / (w_(i) + twice);
            // Both may be infinite at a trial step that goes too far.
            const double t = twice * scale, u = w_(i) < INFINITY ? w_(i) * scale : 1.0;
            u_(i) = u;
            v.p += pi_(i) * t;
            v.left += pi_(i) * u;
            v.mixed += pi_(i) * t * u;
            missing += pi_(i) * (in_reach_(i) ? u : -t);
        }
        // 1/a, which must not become zero where S0 has a null space.
        const double inverse = std::max(std::exp(log_b_ + origin_) * v.left / v.p, 1e-300);
        double student = 0.0, idle = 0.0;
        for (Index j = 0; j < s0_.size(); ++j) {
            const double scale = 1.0 / (inverse + s0_(j));
            share_(j) = s0_(j) * scale;
            const double rest = inverse * scale;
            student += rho_(j) * share_(j);
            v.side += rho_(j) * share_(j) * rest;
            if (s0_(j) > 0.0) idle += rho_(j) * rest;
        }
        for (Index j = 0; j < s0_.size(); ++j) {
            v.spread += rho_(j) * (share_(j) - student) * (share_(j) - student);
        }
        // Early both sides are small; late both are close to the rank that is learned.
        v.excess = v.p > 0.5 * reach_ ? spare_ - idle + missing : student - v.p;
        return v;
    }

    // Newton's method from the last solution.
    bool refine() {
        for (int iteration = 0; iteration < 30; ++iteration) {
            const Balance v = sides();
            if (std::abs(v.excess) < TINY) return true;
            const double slope = v.side * (v.mixed / (v.p * v.left) - 1.0) - v.mixed;
            const double change = -v.excess / slope;
            if (!(std::abs(change) < FAR)) return false;
            log_b_ += change;
            if (std::abs(change) <= CLOSE) return true;  // the next one would be below rounding
        }
        return false;
    }

    // The excess of the student's side falls with b; a last solution that is far off is replaced by
    // bisection.
    Balance balance() {
        if (!std::isfinite(log_b_)) log_b_ = std::log(mean0_) - origin_;
        const double last = log_b_;
        if (!refine()) {
            const auto above = [&](double x) {
                log_b_ = x;
                const Balance v = sides();
                return v.excess > 0.0 || v.p == 0.0;
            };
            double low = last, high = last;
            double width = 1.0;
            for (; width < 1e12 && !above(low); width *= 2.0) low -= width;
            for (width = 1.0; width < 1e12 && above(high); width *= 2.0) high += width;
            for (int i = 0; i < 200 && high - low > 1e-3; ++i) {
                const double middle = 0.5 * (low + high);
                (above(middle) ? low : high) = middle;
            }
            log_b_ = 0.5 * (low + high);
            if (!refine()) {
                log_b_ = last;
                const Balance failed = sides();
                w_.setConstant(NAN);
                return failed;
            }
        }
        return sides();
    }

    void evaluate(const double* y) {
        const Index n = mu_.size();
        const double tau = y[0], sigma = y[1];
        const double* rest = y + 2 + n;
        origin_ = 2.0 * (sigma - tau * last_);
        bool started = false;
        for (Index i = 0; i < n; ++i) {
            const double x = 2.0 * (tau * mu_(i) - sigma), z = std::exp(-std::abs(x));
            const double larger = 1.0 / (1.0 + z);
            L_(i) = x > 0.0 ? larger : z * larger;
            N_(i) = x > 0.0 ? z * larger : larger;
            // (1 - L)/b = exp(null - log_b_).
            null_(i) = 2.0 * tau * (x > 0.0 ? last_ - mu_(i) : last_) -
                       (x > 0.0 ? 0.0 : 2.0 * sigma) - std::log1p(z);
            grown_(i) = std::max(y[2 + i], 0.0);
            started = started || grown_(i) > 0.0;
        }
        Balance v;
        if (started) {
            v = balance();
        } else {
            log_b_ = std::log(mean0_) - origin_;
            w_ = (null_ - log_b_).exp();
            u_.setOnes();
        }
        double flux = 0.0, total = 0.0, inner = 0.0;
        deviation_ = 0.0;
        for (Index i = 0; i < n; ++i) {
            const double scale = 1.0 / (w_(i) + 2.0 * grown_(i));
            S_(i) = L_(i) * scale;
            A_(i) = mu_(i) > 0.0 && L_(i) >= 0.5 ? -mu_(i) * (w_(i) + 2.0 * rest[i]) * scale
                                                 : S_(i) - mu_(i);
            deviation_ += pi_(i) * A_(i);
            flux += 2.0 * pi_(i) * S_(i) * u_(i);
            total += pi_(i) * S_(i);
            inner += pi_(i) * S_(i) * A_(i);
        }
        // What S has beside its diagonal in the teacher's basis.
        if (v.left < 1.0) {
            beside_ = v.spread <= 0.0 ? 0.0
                                      : 0.25 * v.spread * flux * flux /
                                            (v.p * v.left * v.side + v.mixed * v.spread);
        } else {
            // tau = 0: the variance of S0's law, at the scale of the start.
            const double scale = std::exp(-2.0 * sigma);
            const double mean2 = (rho_ * s0_ * s0_).sum();
            beside_ = scale * scale * (mean2 - mean0_ * mean0_);
        }
        if (hard_) {
            // The last term vanishes on the constraint and keeps rounding from adding up.
            s_ = -(inner + beside_) / total + deviation_ / target_;
        } else {
            s_ = kappa_d_ * deviation_ + lam_;
        }
    }

    double kappa_d_, lam_;
    bool hard_;
    ArrayXd s0_, rho_, mu_, pi_, in_reach_;
    double mean0_, target_, last_ = 0.0, spare_, reach_;
    // log(b) - origin, origin = 2 (sigma - tau last): the solution of the scalar equation at the
    // last state, where the next search starts.
    double log_b_ = std::numeric_limits<double>::quiet_NaN(), origin_ = 0.0;
    double s_ = 0.0, deviation_ = 0.0, beside_ = 0.0;
    ArrayXd null_, grown_, w_, u_, share_, L_, N_, S_, A_;
};

}  // namespace

std::unique_ptr<Run> limit(const Measure& student, const Measure& teacher, double kappa_d,
                           double lam, const Numerics& numerics) {
    auto flow = std::make_unique<LimitFlow>(student, teacher, kappa_d, lam);
    std::vector<double> start = flow->start();
    return std::make_unique<OdeIntegrator>(std::move(flow), std::move(start), numerics.t,
                                           numerics.rtol, numerics.atol, OdeMethod::AUTO,
                                           numerics.max_steps);
}

}  // namespace overparam::population_flow
