#include "math/ode.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "math/dop853_tableau.hpp"
#include "math/radau.hpp"

namespace overparam {

namespace {

constexpr double SAFETY = 0.9;
constexpr double MIN_FACTOR = 0.2, MAX_FACTOR = 10.0;
// RKC is held to tolerances this much tighter: being of low order it takes many steps, and its
// local errors add up where DOP853's do not.
constexpr double RKC_TIGHTENING = 0.01;
constexpr double EPS = std::numeric_limits<double>::epsilon();

double norm(const std::vector<double>& v) {
    double s = 0.0;
    for (double x : v) s += x * x;
    return std::sqrt(s);
}

// y = x + h sum_j a_j k_j over the non-zero coefficients; k holds the stages one after the other.
void combine(const std::vector<double>& x, const double* a, int count, double h,
             const std::vector<double>& k, std::vector<double>& y) {
    const Index d = static_cast<Index>(x.size());
    const double* stages[dop853::EXTENDED_STAGES];
    double factors[dop853::EXTENDED_STAGES];
    int used = 0;
    for (int j = 0; j < count; ++j) {
        if (a[j] == 0.0) continue;
        stages[used] = k.data() + j * d;
        factors[used++] = h * a[j];
    }
    for (Index i = 0; i < d; ++i) {
        double s = 0.0;
        for (int j = 0; j < used; ++j) s += factors[j] * stages[j][i];
        y[i] = x[i] + s;
    }
}

}  // namespace

OdeIntegrator::OdeIntegrator(std::unique_ptr<OdeSystem> system, std::vector<double> start,
                             std::vector<double> times, double rtol, double atol, OdeMethod method,
                             Index max_steps)
    : system_(std::move(system)),
      d_(system_->size()),
      observed_(system_->observed_size()),
      times_(std::move(times)),
      values_(times_.size() * observed_),
      rtol_(rtol),
      atol_(atol),
      method_(method),
      max_steps_(max_steps),
      y_(std::move(start)),
      f_(d_),
      next_(d_),
      next_f_(d_),
      stage_(d_),
      k_(dop853::EXTENDED_STAGES * d_),
      dense_(7 * d_),
      point_(d_),
      direction_(d_) {
    for (auto& c : chebyshev_) c.resize(d_);
}

OdeIntegrator::~OdeIntegrator() = default;

void OdeIntegrator::rhs(const double* y, double* dy) {
    system_->rhs(y, dy);
    ++evaluations_;
}

double OdeIntegrator::error_scale(Index i, const double* y, const double* z) const {
    return atol_ + rtol_ * std::max(std::abs(y[i]), std::abs(z[i]));
}

bool OdeIntegrator::advance(Index evaluations) {
    const Index stop = evaluations_ + evaluations;
    if (!started_) {
        started_ = true;
        if (!times_.empty() && times_[0] == 0.0) save(y_);
        if (saved_ == static_cast<Index>(times_.size())) done_ = true;
        if (method_ == OdeMethod::RKC || method_ == OdeMethod::RADAU) stabilise();
        if (!done_) first_step();
    }
    while (!done_ && evaluations_ < stop) {
        if (steps_ >= max_steps_) {
            status_ = Status::MAX_STEPS;
            done_ = true;
        } else if (t_ + h_ == t_) {
            reject(1.0, true);
        } else if (radau_) {
            radau_step();
        } else if (stabilised_) {
            rkc_step();
        } else {
            dop853_step();
        }
    }
    return done_;
}

void OdeIntegrator::save(const std::vector<double>& y) {
    system_->observe(y.data(), values_.data() + saved_ * observed_);
    ++saved_;
}

void OdeIntegrator::stabilise() {
    stabilised_ = true;
    if (method_ == OdeMethod::RADAU || (method_ == OdeMethod::AUTO && system_->implicit())) {
        radau_ = std::make_unique<RadauWorkspace>(d_);
        return;
    }
    radius_ = 0.0;
    if (system_->change_coordinates(y_)) rhs(y_.data(), f_.data());
}

// Hairer, Norsett, Wanner, section II.4: a first step from the size of y' and of y''.
void OdeIntegrator::first_step() {
    if (below_resolution()) {
        done_ = true;
        status_ = Status::STEP_UNDERFLOW;
        return;
    }
    rhs(y_.data(), f_.data());
    const auto scaled = [&](const std::vector<double>& v) {
        double s = 0.0;
        for (Index i = 0; i < d_; ++i) {
            const double r = v[i] / error_scale(i, y_.data(), y_.data());
            s += r * r;
        }
        return std::sqrt(s / d_);
    };
    const double d0 = scaled(y_), d1 = scaled(f_);
    const double last = times_.back();
    double h0 = d0 < 1e-5 || d1 < 1e-5 ? 1e-6 : 0.01 * d0 / d1;
    h0 = std::min(h0, last);
    for (Index i = 0; i < d_; ++i) stage_[i] = y_[i] + h0 * f_[i];
    rhs(stage_.data(), next_f_.data());
    for (Index i = 0; i < d_; ++i) stage_[i] = next_f_[i] - f_[i];
    const double d2 = scaled(stage_) / h0;
    const double order = stabilised_ ? 3.0 : 8.0;
    const double top = std::max(d1, d2);
    const double h1 = top <= 1e-15 ? std::max(1e-6, h0 * 1e-3) : std::pow(0.01 / top, 1.0 / order);
    h_ = std::min({100.0 * h0, h1, last});
    if (!std::isfinite(h_) || h_ <= 0.0) reject(1.0, false);
}

// Whether the tolerances ask for more digits than the state has.
bool OdeIntegrator::below_resolution() const {
    double s = 0.0;
    for (Index i = 0; i < d_; ++i) {
        const double r = EPS * y_[i] / error_scale(i, y_.data(), y_.data());
        s += r * r;
    }
    return s > static_cast<double>(d_);
}

void OdeIntegrator::reject(double factor, bool finite) {
    ++rejected_;
    last_rejected_ = true;
    h_ *= factor;
    const double floor = 16.0 * EPS * std::max(t_, 1e-6 * times_.back());
    if (!(h_ > floor) || below_resolution()) {
        done_ = true;
        // A solution that blows up changes by a good part of itself even in the last, tiny step.
        const bool large = !finite || !(h_ * norm(f_) < 1e-4 * norm(y_));
        status_ = large ? Status::DIVERGED : Status::STEP_UNDERFLOW;
    }
}

void OdeIntegrator::accept(double h, const std::vector<double>& y, const std::vector<double>& f) {
    t_ += h;
    y_ = y;
    f_ = f;
    ++steps_;
    last_rejected_ = false;
    if (saved_ == static_cast<Index>(times_.size())) done_ = true;
}

void OdeIntegrator::dop853_step() {
    using namespace dop853;
    const double h = h_;
    const double last = times_.back();
    std::copy(f_.begin(), f_.end(), k_.begin());
    for (int s = 1; s < STAGES; ++s) {
        combine(y_, A[s], s, h, k_, stage_);
        rhs(stage_.data(), k_.data() + s * d_);
    }
    combine(y_, A[STAGES], STAGES, h, k_, next_);
    rhs(next_.data(), next_f_.data());
    std::copy(next_f_.begin(), next_f_.end(), k_.begin() + STAGES * d_);

    double e5 = 0.0, e3 = 0.0;
    for (Index i = 0; i < d_; ++i) {
        double a = 0.0, b = 0.0;
        for (int s = 0; s <= STAGES; ++s) {
            a += E5[s] * k_[s * d_ + i];
            b += E3[s] * k_[s * d_ + i];
        }
        const double scale = error_scale(i, y_.data(), next_.data());
        e5 += (a / scale) * (a / scale);
        e3 += (b / scale) * (b / scale);
    }
    const double error = e5 == 0.0 && e3 == 0.0
                             ? 0.0
                             : h * e5 / std::sqrt((e5 + 0.01 * e3) * static_cast<double>(d_));
    if (!(error < 1.0)) {
        const bool finite = std::isfinite(error);
        reject(finite ? std::max(MIN_FACTOR, SAFETY * std::pow(error, -0.125)) : MIN_FACTOR,
               finite);
        return;
    }
    double factor =
        error == 0.0 ? MAX_FACTOR : std::min(MAX_FACTOR, SAFETY * std::pow(error, -0.125));
    if (last_rejected_) factor = std::min(1.0, factor);

    const Index grid = static_cast<Index>(times_.size());
    if (saved_ < grid && times_[saved_] <= t_ + h) {
        const bool interpolate = times_[saved_] < t_ + h;
        if (interpolate) {
            for (int s = STAGES + 1; s < EXTENDED_STAGES; ++s) {
                combine(y_, A[s], s, h, k_, stage_);
                rhs(stage_.data(), k_.data() + s * d_);
            }
            for (Index i = 0; i < d_; ++i) {
                const double dy = next_[i] - y_[i];
                dense_[i] = dy;
                dense_[d_ + i] = h * f_[i] - dy;
                dense_[2 * d_ + i] = 2.0 * dy - h * (next_f_[i] + f_[i]);
                for (int r = 0; r < 4; ++r) {
                    double s = 0.0;
                    for (int j = 0; j < EXTENDED_STAGES; ++j) s += D[r][j] * k_[j * d_ + i];
                    dense_[(3 + r) * d_ + i] = h * s;
                }
            }
        }
        while (saved_ < grid && times_[saved_] <= t_ + h) {
            const double x = std::min(1.0, (times_[saved_] - t_) / h);
            if (!interpolate || x == 1.0) {
                save(next_);
                continue;
            }
            for (Index i = 0; i < d_; ++i) {
                double s = 0.0;
                for (int r = 6; r >= 0; --r)
                    s = (s + dense_[r * d_ + i]) * (r % 2 == 0 ? x : 1.0 - x);
                point_[i] = y_[i] + s;
            }
            save(point_);
        }
    }
    const bool stiff = watch_stiffness(h);
    accept(h, next_, next_f_);
    h_ = std::min(h * factor, std::max(last - t_, h));
    if (stiff && !done_) stabilise();
}

// Hairer's test: the last two stages give an estimate of h times the largest eigenvalue; fifteen
// steps beyond the stability limit of the method mean that stability, not accuracy, sets the step.
// At tight tolerances the error estimate keeps steps below that limit; where the implicit method is
// the alternative, which is no loss if the equation is not stiff, a lower one counts.
bool OdeIntegrator::watch_stiffness(double h) {
    if (method_ != OdeMethod::AUTO) return false;
    double num = 0.0, den = 0.0;
    combine(y_, dop853::A[11], 11, h, k_, stage_);
    for (Index i = 0; i < d_; ++i) {
        const double df = next_f_[i] - k_[11 * d_ + i], dy = next_[i] - stage_[i];
        num += df * df;
        den += dy * dy;
    }
    const double limit = system_->implicit() ? 2.5 : 6.1;
    if (den > 0.0 && h * std::sqrt(num / den) > limit) {
        smooth_count_ = 0;
        if (++stiff_count_ >= 15 && t_ >= retry_time_) {
            stiff_count_ = trial_steps_ = 0;
            explicit_cost_ = dop853::STAGES / h;
            explicit_h_ = h;
            return true;
        }
    } else if (++smooth_count_ >= 6) {
        stiff_count_ = 0;
    }
    return false;
}

// After a few stabilised steps: back to the explicit method if that was cheaper, and try again
// later.
void OdeIntegrator::watch_cost(double h, int stages) {
    if (method_ != OdeMethod::AUTO) return;
    constexpr int SETTLE = 10, TRIAL = 20;
    if (trial_steps_ < SETTLE) {
        trial_start_ = t_ + h;
        trial_evaluations_ = 0;
    } else {
        trial_evaluations_ += stages + 1;
    }
    if (++trial_steps_ == TRIAL && trial_evaluations_ > explicit_cost_ * (t_ + h - trial_start_)) {
        stabilised_ = false;
        retry_time_ = 1.5 * (t_ + h);
        h_ = explicit_h_;
    }
}

// Largest modulus of the Jacobian's eigenvalues by a nonlinear power iteration, with a margin.
double OdeIntegrator::spectral_radius() {
    const double size = norm(y_);
    const double distance = std::sqrt(EPS) * (size > 0.0 ? size : 1.0);
    if (radius_ == 0.0) direction_ = f_;
    double length = norm(direction_);
    if (!(length > 0.0)) {
        for (Index i = 0; i < d_; ++i) direction_[i] = i % 2 ? 1.0 : -1.0;
        length = norm(direction_);
    }
    double estimate = 0.0;
    for (int iteration = 0; iteration < 50; ++iteration) {
        for (Index i = 0; i < d_; ++i) stage_[i] = y_[i] + distance / length * direction_[i];
        rhs(stage_.data(), next_f_.data());
        for (Index i = 0; i < d_; ++i) direction_[i] = next_f_[i] - f_[i];
        length = norm(direction_);
        const double previous = estimate;
        estimate = length / distance;
        if (!(length > 0.0) || !std::isfinite(length)) break;
        if (iteration > 0 && std::abs(estimate - previous) <= 0.01 * estimate) break;
    }
    radius_age_ = 0;
    return 1.2 * estimate;
}

// One step of RKC (Sommeijer, Shampine, Verwer, J. Comput. Appl. Math. 88 (1997) 315), second
// order.
void OdeIntegrator::rkc_step() {
    const double last = times_.back();
    if (radius_ == 0.0 || radius_age_ >= 25) radius_ = spectral_radius();
    const double limit =
        std::max(10.0, std::round(std::sqrt(RKC_TIGHTENING * rtol_ / (10.0 * EPS))));
    double stages_wanted = 1.0 + std::sqrt(1.54 * h_ * radius_ + 1.0);
    if (stages_wanted > limit) {
        stages_wanted = limit;
        h_ = (limit * limit - 1.0) / (1.54 * radius_);
    }
    const double h = h_;
    const int s = std::max(2, static_cast<int>(stages_wanted));

    const double w0 = 1.0 + 2.0 / (13.0 * s * s);
    const double root = w0 * w0 - 1.0;
    const double arg = s * std::log(w0 + std::sqrt(root));
    const double w1 =
        std::sinh(arg) * root / (std::cosh(arg) * s * std::sqrt(root) - w0 * std::sinh(arg));
    // Chebyshev polynomials at w0 with two derivatives, for j - 1 and j - 2.
    double t1 = w0, t2 = 1.0, d1 = 1.0, d2 = 0.0, dd1 = 0.0, dd2 = 0.0;
    double b1 = 1.0 / (4.0 * w0 * w0), b2 = b1;
    double a1 = 1.0 - b1 * w0;
    std::vector<double>*older = &chebyshev_[0], *old = &chebyshev_[1], *now = &chebyshev_[2];
    *older = y_;
    for (Index i = 0; i < d_; ++i) (*old)[i] = y_[i] + b1 * w1 * h * f_[i];
    for (int j = 2; j <= s; ++j) {
        const double t0 = 2.0 * w0 * t1 - t2;
        const double d0 = 2.0 * w0 * d1 - d2 + 2.0 * t1;
        const double dd0 = 2.0 * w0 * dd1 - dd2 + 4.0 * d1;
        const double b0 = dd0 / (d0 * d0);
        const double mu = 2.0 * w0 * b0 / b1, nu = -b0 / b2, mut = mu * w1 / w0, gamma = -a1 * mut;
        rhs(old->data(), next_f_.data());
        for (Index i = 0; i < d_; ++i) {
            (*now)[i] = (1.0 - mu - nu) * y_[i] + mu * (*old)[i] + nu * (*older)[i] +
                        h * (mut * next_f_[i] + gamma * f_[i]);
        }
        std::swap(older, old);
        std::swap(old, now);
        t2 = t1, t1 = t0, d2 = d1, d1 = d0, dd2 = dd1, dd1 = dd0;
        b2 = b1, b1 = b0;
        a1 = 1.0 - b1 * t1;
    }
    next_ = *old;
    rhs(next_.data(), next_f_.data());
    double e = 0.0;
    for (Index i = 0; i < d_; ++i) {
        const double estimate = 0.8 * (y_[i] - next_[i]) + 0.4 * h * (f_[i] + next_f_[i]);
        const double r = estimate / (RKC_TIGHTENING * error_scale(i, y_.data(), next_.data()));
        e += r * r;
    }
    const double error = std::sqrt(e / d_);
    if (!(error < 1.0)) {
        const bool finite = std::isfinite(error);
        radius_ = 0.0;
        reject(finite ? std::max(0.1, 0.8 * std::pow(error, -1.0 / 3.0)) : 0.1, finite);
        return;
    }
    double factor =
        error == 0.0 ? MAX_FACTOR : std::min(MAX_FACTOR, 0.8 * std::pow(error, -1.0 / 3.0));
    if (last_rejected_) factor = std::min(1.0, factor);
    // Cubic Hermite interpolation, one order above the method.
    while (saved_ < static_cast<Index>(times_.size()) && times_[saved_] <= t_ + h) {
        const double x = std::min(1.0, (times_[saved_] - t_) / h);
        for (Index i = 0; i < d_; ++i) {
            const double dy = next_[i] - y_[i];
            point_[i] = x == 1.0
                            ? next_[i]
                            : y_[i] + x * dy +
                                  x * (1.0 - x) *
                                      ((1.0 - x) * (h * f_[i] - dy) - x * (h * next_f_[i] - dy));
        }
        save(point_);
    }
    ++stiff_steps_;
    ++radius_age_;
    h_ = std::min(h * factor, std::max(last - t_ - h, h));
    watch_cost(h, s);
    accept(h, next_, next_f_);
}

// The Jacobian by forward differences.
void OdeIntegrator::differentiate() {
    for (Index j = 0; j < d_; ++j) {
        stage_ = y_;
        const double step = std::sqrt(EPS * std::max(1e-5, std::abs(y_[j])));
        stage_[j] += step;
        const double exact_step = stage_[j] - y_[j];
        rhs(stage_.data(), point_.data());
        for (Index i = 0; i < d_; ++i) radau_->jacobian(i, j) = (point_[i] - f_[i]) / exact_step;
    }
    radau_->fresh = true;
    radau_->factored_h = 0.0;
}

// Newton's method for the stages of Radau IIA; false if it does not converge.
bool OdeIntegrator::solve_collocation() {
    RadauWorkspace& w = *radau_;
    constexpr int MAX_ITERATIONS = 12;
    const double target = std::max(10.0 * EPS / rtol_, std::min(0.03, std::sqrt(rtol_)));
    double previous = 0.0;
    w.contraction = 0.0;
    for (int iteration = 0; iteration < MAX_ITERATIONS; ++iteration) {
        for (int s = 0; s < radau::STAGES; ++s) {
            for (Index i = 0; i < d_; ++i) stage_[i] = y_[i] + w.Z(i, s);
            rhs(stage_.data(), w.F.col(s).data());
        }
        w.residual();
        w.solve();
        double length = 0.0;
        for (Index i = 0; i < d_; ++i) {
            const double scale = error_scale(i, y_.data(), y_.data());
            for (int s = 0; s < radau::STAGES; ++s) {
                const double r = w.change(i + d_ * s) / scale;
                length += r * r;
            }
        }
        length = std::sqrt(length / static_cast<double>(d_ * radau::STAGES));
        if (!std::isfinite(length)) return false;
        for (int s = 0; s < radau::STAGES; ++s) w.Z.col(s) += w.change.segment(d_ * s, d_);
        if (iteration > 0) {
            w.contraction = length / previous;
            if (w.contraction >= 1.0 && length > target) return false;
        }
        const double left = w.contraction < 1.0 ? w.contraction / (1.0 - w.contraction) : 1.0;
        if (length == 0.0 || (iteration > 0 && left * length <= target)) return true;
        previous = length;
    }
    return false;
}

// One step of Radau IIA with five stages: a collocation polynomial, whose stages Newton's method
// finds with a Jacobian that is kept while it serves (Hairer and Wanner, section IV.8).
void OdeIntegrator::radau_step() {
    RadauWorkspace& w = *radau_;
    const double last = times_.back();
    const double h = h_;
    if (!w.has_jacobian) {
        differentiate();
        w.has_jacobian = true;
    }
    if (w.factored_h != h) w.factorise(h);
    w.start(h);
    if (!solve_collocation()) {
        if (w.fresh) {
            reject(0.5, std::isfinite(w.Z.sum()));
        } else {
            differentiate();
        }
        w.has_polynomial = false;
        return;
    }
    for (Index i = 0; i < d_; ++i) next_[i] = y_[i] + w.Z(i, radau::STAGES - 1);
    rhs(next_.data(), next_f_.data());
    const auto measure = [&](const double* f) {
        w.estimate(h, f);
        double e = 0.0;
        for (Index i = 0; i < d_; ++i) {
            const double r = w.error(i) / error_scale(i, y_.data(), next_.data());
            e += r * r;
        }
        return std::sqrt(e / static_cast<double>(d_));
    };
    double error = measure(f_.data());
    if (error >= 1.0 && (steps_ == 0 || last_rejected_)) {
        for (Index i = 0; i < d_; ++i) stage_[i] = y_[i] + w.error(i);
        rhs(stage_.data(), point_.data());
        error = measure(point_.data());
    }
    const double power = -1.0 / (radau::STAGES + 1);
    if (!(error < 1.0)) {
        const bool finite = std::isfinite(error);
        reject(finite ? std::max(0.1, 0.9 * std::pow(error, power)) : 0.1, finite);
        w.has_polynomial = false;
        return;
    }
    double factor = error == 0.0 ? MAX_FACTOR : std::min(8.0, 0.9 * std::pow(error, power));
    if (last_rejected_) factor = std::min(1.0, factor);
    while (saved_ < static_cast<Index>(times_.size()) && times_[saved_] <= t_ + h) {
        const double x = std::min(1.0, (times_[saved_] - t_) / h);
        if (x == 1.0) {
            save(next_);
            continue;
        }
        w.interpolate(x, y_.data(), point_.data());
        save(point_);
    }
    w.keep_polynomial(h);
    ++stiff_steps_;
    w.fresh = false;
    if (w.contraction > 1e-2) w.has_jacobian = false;
    double next_h = std::min(h * factor, std::max(last - t_ - h, h));
    // A step that hardly changes is kept, and with it the factors.
    if (w.has_jacobian && next_h >= h && next_h <= 1.2 * h) next_h = h;
    h_ = next_h;
    accept(h, next_, next_f_);
}

}  // namespace overparam
