// The readout fitted to the signs of labels by logistic loss: docs/papers/giant_step.md, section 7.
#include <Eigen/Dense>
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "math/gauss.hpp"
#include "math/roots.hpp"
#include "models/giant_step.hpp"

namespace overparam::giant_step {

namespace {

constexpr double PI = 3.14159265358979323846;

// The range of a normal variable, the longest step of the trapezoid rule for it, its step where the
// prox, singular at a distance pi from real outputs, or the label's probability varies faster, and
// the shortest one.
constexpr double NORMAL_RANGE = 8.5, LONGEST_STEP = 0.6, PROX_STEP = 0.75, LABEL_STEP = 0.7;
constexpr double SHORTEST_STEP = 2e-3;
// Beyond this argument the normal distribution function is 0 or 1.
constexpr double CERTAIN = 9.0;
// Damped steps before Newton's method, their damping, and the largest number of iterations.
constexpr int FIRST_STEPS = 10, MAX_ITERATIONS = 150;
constexpr double DAMPING = 0.5;
// Relative change of all unknowns at which they are exact, and at which they are good enough.
constexpr double EXACT = 1e-12, TOLERANCE = 1e-10;
// Relative steps of the Jacobian's differences, and the largest change of a logarithm in one step.
constexpr double DIFFERENCE = 1e-6, LARGEST_CHANGE = 2.0;
// Unknowns beyond these bounds diverge.
constexpr double DIVERGED = 1e8, LOG_DIVERGED = 60.0;
// mu0 below this fraction of mus is no feature.
constexpr double NO_MEAN = 1e-12;
constexpr int PANEL_NODES = 12;

double density(double x) { return std::exp(-0.5 * x * x) / std::sqrt(2.0 * PI); }
double distribution(double x) { return 0.5 * std::erfc(-x * std::sqrt(0.5)); }

// The loss of a label +-1 at an output: its minimiser f of loss(f) + (f - w)^2/(2 V) for the label
// +1, the derivative -loss'(f) and the second derivative there.
struct Logistic {
    static double prox(double w, double V, double start) {
        // Between w and w + V; the equation increases in f.
        const auto equation = [&](double f) {
            const double s = 1.0 / (1.0 + std::exp(f));
            return std::pair(f - w - V * s, 1.0 + V * s * (1.0 - s));
        };
        double f = start;
        for (int i = 0; i < 8; ++i) {
            const auto [value, slope] = equation(f);
            const double change = value / slope;
            f = std::clamp(f - change, w, w + V);
            if (std::abs(change) < 1e-7 * (1.0 + std::abs(f))) {
                const auto [last, steepness] = equation(f);
                return f - last / steepness;
            }
        }
        return newton_within(equation, w, w + V, f,
                             [](double x) { return 1e-15 * (1.0 + std::abs(x)); });
    }
    static double value(double f) {
        return f > 0.0 ? std::log1p(std::exp(-f)) : std::log1p(std::exp(f)) - f;
    }
    static double pull(double f) { return 1.0 / (1.0 + std::exp(f)); }
    static double curvature(double f) {
        const double s = pull(f);
        return s * (1.0 - s);
    }
};

// (y - f)^2/2, for tests against the equations of ridge regression.
struct Square {
    static double prox(double w, double V, double) { return (w + V) / (1.0 + V); }
    static double value(double f) { return 0.5 * (1.0 - f) * (1.0 - f); }
    static double pull(double f) { return 1.0 - f; }
    static double curvature(double) { return 1.0; }
};

// The label given kappa and the projection omega ~ N(mean, deviation^2).
class LabelAverage {
  public:
    LabelAverage(const SignLaw& law, double alignment)
        : law_(law), gamma_(alignment), rho_(std::sqrt((1.0 - alignment) * (1.0 + alignment))) {}

    double rho() const { return rho_; }

    // Probability of the label +1 and the average of omega with it.
    std::array<double, 2> at(double kappa, double certain, double mean, double deviation) const {
        if (rho_ == 0.0) return {certain, certain * mean};
        const double centre = gamma_ * kappa + rho_ * mean, width = rho_ * deviation;
        double probability = 0.0, slope = 0.0;
        double sign = law_.first;
        if (sign > 0.0) probability = 1.0;
        const double scale = 1.0 / width;
        auto t =
            std::lower_bound(law_.changes.begin(), law_.changes.end(), centre - CERTAIN * width);
        if ((t - law_.changes.begin()) % 2 != 0) {
            sign = -sign;
            probability = sign > 0.0 ? 1.0 : 0.0;
        }
        for (; t != law_.changes.end(); ++t) {
            const double a = (*t - centre) * scale;
            if (a > CERTAIN) break;
            // The sign of the label turns above t.
            probability -= sign * distribution(-a);
            slope -= sign * density(a);
            sign = -sign;
        }
        double omega = mean * probability + deviation * slope;
        if (!law_.node.empty()) {
            const auto begin = law_.node.begin();
            const Index from =
                std::lower_bound(begin, law_.node.end(), centre - CERTAIN * width) - begin;
            const Index count =
                std::upper_bound(begin, law_.node.end(), centre + CERTAIN * width) - begin - from;
            const Eigen::Map<const Eigen::ArrayXd> u(law_.node.data() + from, count);
            const Eigen::Map<const Eigen::ArrayXd> rest(law_.rest.data() + from, count);
            const auto a = (u - centre) * scale;
            const Eigen::ArrayXd part = rest * (-0.5 * a.square()).exp();
            const double norm = scale / std::sqrt(2.0 * PI);
            const double sum = norm * part.sum();
            probability += sum;
            omega += sum * mean + norm * (part * a).sum() * deviation;
        }
        return {probability, omega};
    }

  private:
    const SignLaw& law_;
    double gamma_, rho_;
};

// The unknowns: logarithms of V1, V2, Q1 - psi^2 and q2, then m, theta and psi.
constexpr int UNKNOWNS = 7;
using Unknowns = Eigen::Matrix<double, UNKNOWNS, 1>;
enum { V1, V2, Q1, Q2, M, THETA, PSI };

template <class Loss>
class Solver {
  public:
    Solver(const Tables& tables, double variance, double alignment, const SignLaw& law,
           const Setting& setting)
        : tables_(tables),
          c_(variance),
          label_(law, alignment),
          law_(law),
          setting_(setting),
          prox_(tables.kappa.size()) {
        double mean = 0.0, all = 0.0;
        for (std::size_t k = 0; k < tables.kappa.size(); ++k) {
            mean += tables.weight[k] * tables.mean[k] * tables.mean[k];
            all +=
                tables.weight[k] * (tables.residual[k] + c_ * tables.linear[k] * tables.linear[k]);
        }
        has_mean_ = mean > NO_MEAN * NO_MEAN * (mean + all);
    }

    Readout solve() {
        Unknowns u;
        u << 0.0, 0.0, std::log(0.1), std::log(0.1), 0.0, 0.0, 0.0;
        Unknowns r = image(u) - u;
        Status status = Status::NOT_CONVERGED;
        Eigen::Matrix<double, UNKNOWNS, UNKNOWNS> jacobian;
        bool fresh = false, usable = false;
        Index iteration = 0;
        Unknowns best = u, best_r = r;
        for (; iteration < MAX_ITERATIONS; ++iteration) {
            if (!r.allFinite() || diverged(u)) {
                status = Status::DIVERGED;
                break;
            }
            const double size = norm(u, r);
            if (size < norm(best, best_r)) best = u, best_r = r;
            if (size < EXACT || (size < TOLERANCE && iteration + 1 == MAX_ITERATIONS)) {
                status = Status::SUCCESS;
                break;
            }
            if (iteration < FIRST_STEPS && size > 1e-3) {
                u += DAMPING * limited(r);
                r = image(u) - u;
                continue;
            }
            if (!usable) {
                for (int i = 0; i < UNKNOWNS; ++i) {
                    Unknowns moved = u;
                    const double step = DIFFERENCE * std::max(1.0, std::abs(u[i]));
                    moved[i] += step;
                    jacobian.col(i) = (image(moved) - moved - r) / step;
                }
                usable = fresh = true;
            }
            const Unknowns step = limited(jacobian.fullPivLu().solve(-r));
            Unknowns next = u, next_r = r;
            bool better = false;
            for (double length = 1.0; length > 0.05; length *= 0.5) {
                next = u + length * step;
                next_r = image(next) - next;
                better = next_r.allFinite() && norm(next, next_r) < (1.0 - 0.1 * length) * size;
                if (better) {
                    // Broyden's update, as long as it serves.
                    const Unknowns moved = next - u;
                    jacobian +=
                        (next_r - r - jacobian * moved) * moved.transpose() / moved.squaredNorm();
                    usable = norm(next, next_r) < 0.1 * size;
                    break;
                }
                if (!fresh) break;
            }
            if (!better) {
                if (fresh && size < TOLERANCE) {
                    status = Status::SUCCESS;
                    break;
                }
                usable = false;
                if (fresh) {
                    u += DAMPING * limited(r);
                    r = image(u) - u;
                }
                fresh = false;
                continue;
            }
            fresh = false;
            u = next;
            r = next_r;
        }
        if (status == Status::NOT_CONVERGED) u = best, r = best_r;
        return result(u, r, status, iteration);
    }

  private:
    // Averages over kappa, the output and the label.
    struct Averages {
        double linear_curvature = 0, residual_curvature = 0, linear_square = 0, residual_square = 0,
               linear_omega = 0, slope = 0, slope_curvature = 0, mean = 0, mean_curvature = 0,
               loss = 0;
    };

    struct Output {
        double centre, deviation, V, correlation;
    };

    Output output(const Unknowns& u, std::size_t k) const {
        const double mu1 = tables_.linear[k], mus2 = std::max(tables_.residual[k], 0.0);
        const double free = mu1 * mu1 * std::exp(u[Q1]) + mus2 * std::exp(u[Q2]);
        const double pull = mu1 * u[PSI], variance = std::max(free + pull * pull, 1e-300);
        return {u[M] * tables_.mean[k] + u[THETA] * tables_.kappa[k] * mu1, std::sqrt(variance),
                std::max(mu1 * mu1 * std::exp(u[V1]) + mus2 * std::exp(u[V2]), 1e-300),
                pull / std::sqrt(variance)};
    }

    double certain(std::size_t k) const { return law_.certain.empty() ? 0.0 : law_.certain[k]; }

    // Step of the trapezoid rule over the output in units of its deviation.
    double step(const Output& o) const {
        const double tau = std::sqrt((1.0 - o.correlation) * (1.0 + o.correlation));
        double h = std::min(LONGEST_STEP, PROX_STEP / o.deviation);
        if (label_.rho() > 0.0) h = std::min(h, LABEL_STEP * tau / std::abs(o.correlation));
        return std::max(h, SHORTEST_STEP);
    }

    Averages averages(const Unknowns& u) {
        Averages a;
        for (std::size_t k = 0; k < tables_.kappa.size(); ++k) {
            const Output o = output(u, k);
            const double tau = std::sqrt((1.0 - o.correlation) * (1.0 + o.correlation));
            // The step changes by factors of two only.
            const double h = std::exp2(std::floor(std::log2(step(o))));
            const Index half = static_cast<Index>(NORMAL_RANGE / h);
            auto& start = prox_[k];
            if (static_cast<Index>(start.size()) != 2 * half + 1)
                start.assign(2 * half + 1, {NAN, NAN});
            double g = 0.0, curvature = 0.0, square = 0.0, omega = 0.0, loss = 0.0, total = 0.0;
            for (Index i = -half; i <= half; ++i) {
                const double x = static_cast<double>(i) * h, w = o.centre + o.deviation * x;
                const double weight = std::exp(-0.5 * x * x);
                const double mean = o.correlation * x;
                const auto [p, e] = label_.at(tables_.kappa[k], certain(k), mean, tau);
                auto& f = start[i + half];
                for (int side = 0; side < 2; ++side) {
                    const double sign = side == 0 ? 1.0 : -1.0, at = sign * w;
                    const double from =
                        std::isnan(f[side]) ? at + (at > 0.0 ? 0.0 : 0.5 * o.V) : f[side];
                    f[side] = Loss::prox(at, o.V, from);
                    const double share = weight * (side == 0 ? p : 1.0 - p);
                    const double pull = Loss::pull(f[side]), bend = Loss::curvature(f[side]);
                    g += share * sign * pull;
                    curvature += share * bend / (1.0 + o.V * bend);
                    square += share * pull * pull;
                    omega += weight * (side == 0 ? e : mean - e) * sign * pull;
                    loss += share * Loss::value(f[side]);
                }
                total += weight;
            }
            const double weight = tables_.weight[k] / total;
            const double mu0 = tables_.mean[k], mu1 = tables_.linear[k];
            const double mus2 = std::max(tables_.residual[k], 0.0), along = tables_.kappa[k] * mu1;
            a.linear_curvature += weight * mu1 * mu1 * curvature;
            a.residual_curvature += weight * mus2 * curvature;
            a.linear_square += weight * mu1 * mu1 * square;
            a.residual_square += weight * mus2 * square;
            a.linear_omega += weight * mu1 * omega;
            a.slope += weight * along * g;
            a.slope_curvature += weight * along * along * curvature;
            a.mean += weight * mu0 * g;
            a.mean_curvature += weight * mu0 * mu0 * curvature;
            a.loss += weight * loss;
        }
        return a;
    }

    // One iteration of section 7.
    Unknowns image(const Unknowns& u) {
        const Averages a = averages(u);
        const double R = setting_.alpha / setting_.beta, beta = setting_.beta;
        const double V1h = R * a.linear_curvature;
        const double Lambda = setting_.ridge + R * a.residual_curvature;
        // Lambda v + c V1h v/(1 + beta c V1h v) = 1
        const double s = c_ * V1h, linear = Lambda + s * (1.0 - beta);
        const double root = std::sqrt(linear * linear + 4.0 * Lambda * beta * s);
        const double v =
            linear > 0.0 ? 2.0 / (linear + root) : (root - linear) / (2.0 * Lambda * beta * s);
        const double N = beta * c_ * v, Y = 1.0 / (1.0 + V1h * N), kap = N * Y;
        const double epsi = a.linear_omega + u[PSI] * a.linear_curvature;
        const double kvv = N * setting_.slope_variance;
        const double full = a.slope + a.slope_curvature * u[THETA];
        const double theta = R * kvv * full / (1.0 + R * kvv * a.slope_curvature);
        const double eth = full - a.slope_curvature * theta;
        const double variance = c_ * setting_.slope_variance;
        const double q1h = R * a.linear_square + R * R * beta * epsi * epsi;
        const double q2h = R * a.residual_square + R * R * beta * variance * eth * eth;
        // The derivative of (V1, V2) along (q1h, q2h)
        const double dv =
            -v * v * (q2h + c_ * q1h * Y * Y) / (1.0 - c_ * c_ * beta * V1h * V1h * v * v * Y * Y);
        const double dkap = Y * Y * (beta * c_ * dv - N * N * q1h);
        const double psi = R * kap * epsi, q1 = -dkap / beta;
        const double m = has_mean_ ? u[M] + a.mean / a.mean_curvature : 0.0;
        Unknowns next;
        next << std::log(kap / beta), std::log(v), std::log(q1 - psi * psi), std::log(-dv), m,
            theta, psi;
        return next;
    }

    static double norm(const Unknowns& u, const Unknowns& r) {
        double size = 0.0;
        for (int i = 0; i < UNKNOWNS; ++i)
            size = std::max(size, std::abs(r[i]) / (i < M ? 1.0 : 1.0 + std::abs(u[i])));
        return size;
    }

    static Unknowns limited(Unknowns step) {
        for (int i = 0; i < M; ++i) step[i] = std::clamp(step[i], -LARGEST_CHANGE, LARGEST_CHANGE);
        return step;
    }

    static bool diverged(const Unknowns& u) {
        for (int i = 0; i < UNKNOWNS; ++i)
            if (std::abs(u[i]) > (i < M ? LOG_DIVERGED : DIVERGED)) return true;
        return false;
    }

    // Probability that the output has the other sign than the label: panels on either side of 0.
    double class_error(const Unknowns& u) const {
        static const Quadrature legendre = gauss_legendre(PANEL_NODES);
        double error = 0.0;
        for (std::size_t k = 0; k < tables_.kappa.size(); ++k) {
            const Output o = output(u, k);
            const double tau = std::sqrt((1.0 - o.correlation) * (1.0 + o.correlation));
            const double width = std::clamp(2.0 * tau / std::abs(o.correlation), 0.05, 1.0);
            const double zero = std::clamp(-o.centre / o.deviation, -NORMAL_RANGE, NORMAL_RANGE);
            for (const double side : {-1.0, 1.0}) {
                const double length = NORMAL_RANGE - side * zero;
                const Index panels = static_cast<Index>(std::ceil(length / width));
                for (Index i = 0; i < panels; ++i) {
                    const double part = length / static_cast<double>(panels);
                    for (int j = 0; j < PANEL_NODES; ++j) {
                        const double x =
                            zero + side * part * (static_cast<double>(i) + legendre.nodes[j]);
                        const double p =
                            label_.at(tables_.kappa[k], certain(k), o.correlation * x, tau)[0];
                        error += tables_.weight[k] * part * legendre.weights[j] * density(x) *
                                 (side < 0.0 ? p : 1.0 - p);
                    }
                }
            }
        }
        return error;
    }

    Readout result(const Unknowns& u, const Unknowns& r, Status status, Index iterations) {
        Readout out{};
        out.risk = std::numeric_limits<double>::quiet_NaN();
        out.train_risk = averages(u).loss;
        out.class_error = class_error(u);
        out.m = {u[M]};
        out.theta = {u[THETA]};
        out.psi = {u[PSI]};
        out.Q1 = {std::exp(u[Q1]) + u[PSI] * u[PSI]};
        out.q2 = {std::exp(u[Q2])};
        out.V1 = {std::exp(u[V1])};
        out.V2 = {std::exp(u[V2])};
        out.status = status;
        out.iterations = iterations;
        out.residual = norm(u, r);
        return out;
    }

    const Tables& tables_;
    double c_;
    LabelAverage label_;
    const SignLaw& law_;
    const Setting& setting_;
    std::vector<std::vector<std::array<double, 2>>> prox_;  // last ones, at which the next start
    bool has_mean_;
};

}  // namespace

Readout solve_signs(const Tables& tables, double variance, double alignment, const SignLaw& law,
                    const Setting& setting, SignLoss loss) {
    if (loss == SignLoss::SQUARE)
        return Solver<Square>(tables, variance, alignment, law, setting).solve();
    return Solver<Logistic>(tables, variance, alignment, law, setting).solve();
}

}  // namespace overparam::giant_step
