// The readout fitted to the signs of labels by logistic loss: docs/papers/giant_step.md, section 7.
#include <Eigen/Dense>
#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <utility>

#include "base/simd.hpp"
#include "math/erf.hpp"
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
constexpr double CERTAIN = 8.0;
// Damped steps before Newton's method, their damping, and the largest number of iterations.
constexpr int FIRST_STEPS = 10, MAX_ITERATIONS = 150;
constexpr double DAMPING = 0.5;
// Relative change of all unknowns below which damped iterations end, on the way to smaller ridges,
// at which they are exact, and at which they are good enough where Newton's method ends.
constexpr double NEAR = 1e-3, ROUGH = 1e-6, EXACT = 1e-12, TOLERANCE = 1e-10;
// The smallest ridge to start with, the ratio of one to the next, and the shortest step of a line
// search.
constexpr double FIRST_RIDGE = 1e-2, RIDGE_RATIO = 0.1, SHORTEST_LENGTH = 0.05;
// Relative steps of the Jacobian's differences, and the largest change of a logarithm in one step.
constexpr double DIFFERENCE = 1e-6, LARGEST_CHANGE = 2.0;
// Unknowns beyond these bounds diverge.
constexpr double DIVERGED = 1e8, LOG_DIVERGED = 60.0;
// mu0 below this fraction of mus is no feature.
constexpr double NO_MEAN = 1e-12;
// A multiple of eight, for vectors.
constexpr int PANEL_NODES = 16;
// Steps of Newton's method for the prox before a bracketed one, and the relative change after which
// one more step is exact.
constexpr int PROX_STEPS = 40;
constexpr double PROX_LAST = 1e-6;
// Work after which the search ends, in exponentials, and that of the proxes of one output.
constexpr double LARGEST_WORK = 2e9, PROX_WORK = 20.0;

using Eigen::ArrayXd;

// The loss of a label +-1 times the output f: f becomes the minimiser of loss(f) + (f - w)^2/(2 V),
// starting at f. `pull` is then -loss'(f), `curvature` the second derivative at a pull.
struct Logistic {
    static void prox(const ArrayXd& w, double V, ArrayXd& f, ArrayXd& pull) {
        // The equation f = w + V pull(f) is concave for f > 0 and convex for f < 0: from these
        // bounds Newton's method converges without leaving them.
        const auto positive = w > -0.5 * V;
        const ArrayXd low = positive.select(w.max(0.0), w);
        const ArrayXd high = positive.select(w + V, (w + V).min(0.0));
        for (int i = 0; i < PROX_STEPS; ++i) {
            pull = (1.0 + f.exp()).inverse();
            const ArrayXd change = (f - w - V * pull) / (1.0 + V * pull * (1.0 - pull));
            f = (f - change).max(low).min(high);
            if ((change.abs() < PROX_LAST * (1.0 + f.abs())).all()) {
                // One step of Newton's method from here is exact, also for the pull.
                pull = (1.0 + f.exp()).inverse();
                const ArrayXd last = (f - w - V * pull) / (1.0 + V * pull * (1.0 - pull));
                f -= last;
                pull += pull * (1.0 - pull) * last;
                return;
            }
        }
        for (Index i = 0; i < f.size(); ++i) {
            // The equation increases in f.
            const auto equation = [&](double x) {
                const double q = 1.0 / (1.0 + std::exp(x));
                return std::pair(x - w[i] - V * q, 1.0 + V * q * (1.0 - q));
            };
            f[i] = newton_within(equation, w[i], w[i] + V, f[i],
                                 [](double x) { return 1e-15 * (1.0 + std::abs(x)); });
            pull[i] = 1.0 / (1.0 + std::exp(f[i]));
        }
    }
    static ArrayXd value(const ArrayXd& f, const ArrayXd& pull) {
        // log(1 + exp(-f)): the logarithm of an argument that is at least 1/2
        return (-f).max(0.0) - (f > 0.0).select(1.0 - pull, pull).log();
    }
    static ArrayXd curvature(const ArrayXd& pull) { return pull * (1.0 - pull); }
};

// (1 - f)^2/2, for tests against the equations of ridge regression.
struct Square {
    static void prox(const ArrayXd& w, double V, ArrayXd& f, ArrayXd& pull) {
        f = (w + V) / (1.0 + V);
        pull = 1.0 - f;
    }
    static ArrayXd value(const ArrayXd&, const ArrayXd& pull) { return 0.5 * pull.square(); }
    static ArrayXd curvature(const ArrayXd& pull) { return ArrayXd::Ones(pull.size()); }
};

// The label given kappa and the projection omega ~ N(mean, deviation^2).
class LabelAverage {
  public:
    LabelAverage(const SignLaw& law, double alignment)
        : law_(law), gamma_(alignment), rho_(std::sqrt((1.0 - alignment) * (1.0 + alignment))) {}

    double rho() const { return rho_; }
    // Exponentials so far.
    double work() const { return work_; }

    // Probability p of the label +1 and average e of omega with it, at means of omega; their number
    // is a multiple of eight.
    void at(double kappa, double certain, const ArrayXd& mean, double deviation, ArrayXd& p,
            ArrayXd& e) const {
        if (rho_ == 0.0) {
            p.setConstant(mean.size(), certain);
            e = certain * mean;
            return;
        }
        const double width = rho_ * deviation, scale = 1.0 / width;
        const ArrayXd centre = gamma_ * kappa + rho_ * mean;
        const double low = centre.minCoeff() - CERTAIN * width;
        const double high = centre.maxCoeff() + CERTAIN * width;
        p.setConstant(mean.size(), law_.first > 0.0 ? 1.0 : 0.0);
        ArrayXd slope = ArrayXd::Zero(mean.size());
        double sign = law_.first;
        for (const double turn : law_.changes) {
            if (turn > high) break;
            if (turn < low) {
                p -= sign;
            } else {
                for (Index i = 0; i < mean.size(); i += LANES) {
                    const Lanes a = (turn - load(centre.data() + i)) * scale;
                    // The normal distribution function at -a
                    const Lanes beyond = 0.5 - 0.5 * erf_root2(a);
                    store(p.data() + i, load(p.data() + i) - sign * beyond);
                }
                slope -=
                    sign / std::sqrt(2.0 * PI) * (-0.5 * ((turn - centre) * scale).square()).exp();
            }
            sign = -sign;
        }
        e = mean * p + deviation * slope;
        if (law_.node.empty()) return;
        const auto begin = law_.node.begin();
        for (Index i = 0; i < mean.size(); ++i) {
            const Index from =
                std::lower_bound(begin, law_.node.end(), centre[i] - CERTAIN * width) - begin;
            const Index count =
                std::upper_bound(begin, law_.node.end(), centre[i] + CERTAIN * width) - begin -
                from;
            work_ += static_cast<double>(count);
            const Eigen::Map<const ArrayXd> u(law_.node.data() + from, count);
            const Eigen::Map<const ArrayXd> rest(law_.rest.data() + from, count);
            const auto a = (u - centre[i]) * scale;
            const ArrayXd part = rest * (-0.5 * a.square()).exp();
            const double norm = scale / std::sqrt(2.0 * PI), sum = norm * part.sum();
            p[i] += sum;
            e[i] += sum * mean[i] + norm * (part * a).sum() * deviation;
        }
    }

  private:
    const SignLaw& law_;
    double gamma_, rho_;
    mutable double work_ = 0.0;
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
          points_(tables.kappa.size()) {
        double mean = 0.0, all = 0.0;
        for (std::size_t k = 0; k < tables.kappa.size(); ++k) {
            mean += tables.weight[k] * tables.mean[k] * tables.mean[k];
            all +=
                tables.weight[k] * (tables.residual[k] + c_ * tables.linear[k] * tables.linear[k]);
        }
        has_mean_ = mean > NO_MEAN * NO_MEAN * (mean + all);
    }

    Readout solve() {
        State now{Unknowns::Zero(), {}, {}, {}};
        now.u[Q1] = now.u[Q2] = std::log(0.1);
        // Small ridges are approached from larger ones.
        ridge_ = std::max(setting_.ridge, FIRST_RIDGE);
        Status status = find(now, FIRST_STEPS, ridge_ > setting_.ridge ? ROUGH : EXACT);
        State last = now;
        double change = 0.0;  // of log ridge that led from `last` to `now`
        while (ridge_ > setting_.ridge && status == Status::SUCCESS) {
            const double next = std::max(setting_.ridge, RIDGE_RATIO * ridge_);
            const double step = std::log(next / ridge_);
            const State here = now;
            if (change != 0.0) now.u += step / change * (now.u - last.u);
            last = here;
            change = step;
            ridge_ = next;
            status = find(now, 0, ridge_ > setting_.ridge ? ROUGH : EXACT);
        }
        return result(now, status);
    }

    // Probability that the output has the other sign than the label: panels on either side of 0.
    double class_error(const Readout& found) const {
        Unknowns u;
        u << std::log(found.V1[0]), std::log(found.V2[0]),
            std::log(found.Q1[0] - found.psi[0] * found.psi[0]), std::log(found.q2[0]), found.m[0],
            found.theta[0], found.psi[0];
        static const Quadrature legendre = gauss_legendre(PANEL_NODES);
        const Eigen::Map<const ArrayXd> nodes(legendre.nodes.data(), PANEL_NODES);
        const Eigen::Map<const ArrayXd> weights(legendre.weights.data(), PANEL_NODES);
        double error = 0.0;
        for (std::size_t k = 0; k < tables_.kappa.size(); ++k) {
            const Output o = output(u, k);
            const double tau = std::sqrt((1.0 - o.correlation) * (1.0 + o.correlation));
            const double longest = std::clamp(2.0 * tau / std::abs(o.correlation), 0.05, 1.5);
            const double zero = std::clamp(-o.centre / o.deviation, -NORMAL_RANGE, NORMAL_RANGE);
            for (const double side : {-1.0, 1.0}) {
                const double length = NORMAL_RANGE - side * zero;
                const Index panels = static_cast<Index>(std::ceil(length / longest));
                ArrayXd x(panels * PANEL_NODES), weight(panels * PANEL_NODES), p, e;
                const double panel = length / static_cast<double>(panels);
                for (Index i = 0; i < panels; ++i) {
                    const auto here = Eigen::seqN(i * PANEL_NODES, PANEL_NODES);
                    x(here) = zero + side * panel * (static_cast<double>(i) + nodes);
                    weight(here) = panel * weights;
                }
                if (panels == 0) continue;
                label_.at(tables_.kappa[k], certain(k), o.correlation * x, tau, p, e);
                weight *= (-0.5 * x.square()).exp() / std::sqrt(2.0 * PI);
                if (side > 0.0) p = 1.0 - p;
                error += tables_.weight[k] * (weight * p).sum();
            }
        }
        return error;
    }

  private:
    // Unknowns, the change of one iteration, and the mean loss.
    struct State {
        Unknowns u, r;
        double size;  // of r, relative
        double loss;
    };

    State at(const Unknowns& u) {
        const Unknowns r = image(u) - u;
        if (exhausted()) {
            const double nan = std::numeric_limits<double>::quiet_NaN();
            return {u, r, std::numeric_limits<double>::infinity(), nan};
        }
        return {u, r, norm(u, r), loss_};
    }

    bool exhausted() const { return work_ + label_.work() > LARGEST_WORK; }

    // The fixed point next to a state: damped iterations, then Newton's method.
    Status find(State& now, int damped, double exact) {
        now = at(now.u);
        State best = now;
        Eigen::Matrix<double, UNKNOWNS, UNKNOWNS> jacobian;
        bool usable = false;
        for (int i = 0; i < MAX_ITERATIONS; ++i, ++iterations_) {
            if (exhausted()) break;
            if (!now.r.allFinite() || diverged(now.u)) {
                now = best;
                return Status::DIVERGED;
            }
            if (now.size < best.size) best = now;
            if (now.size < exact) return Status::SUCCESS;
            if (i < damped && now.size > NEAR) {
                now = at(now.u + DAMPING * limited(now.r));
                continue;
            }
            const bool fresh = !usable;
            if (fresh) {
                for (int j = 0; j < UNKNOWNS; ++j) {
                    Unknowns moved = now.u;
                    const double step = DIFFERENCE * std::max(1.0, std::abs(now.u[j]));
                    moved[j] += step;
                    jacobian.col(j) = (image(moved) - moved - now.r) / step;
                }
            }
            const Unknowns step = limited(jacobian.fullPivLu().solve(-now.r));
            State next = now;
            double length = 1.0;
            for (; length > SHORTEST_LENGTH; length *= 0.5) {
                next = at(now.u + length * step);
                if (next.size < (1.0 - 0.1 * length) * now.size || !fresh) break;
            }
            usable = next.size < 0.5 * now.size;
            if (next.size < now.size) {
                // Broyden's update
                const Unknowns moved = next.u - now.u;
                jacobian +=
                    (next.r - now.r - jacobian * moved) * moved.transpose() / moved.squaredNorm();
                now = next;
            } else if (fresh) {
                if (now.size < TOLERANCE) return Status::SUCCESS;
                now = at(now.u + DAMPING * limited(now.r));
            }
        }
        now = best;
        return Status::NOT_CONVERGED;
    }

    // Averages over kappa, the output and the label.
    struct Averages {
        double linear_curvature = 0, residual_curvature = 0, linear_square = 0, residual_square = 0,
               linear_omega = 0, slope = 0, slope_curvature = 0, mean = 0, mean_curvature = 0,
               loss = 0;
    };

    // Nodes and weights (of sum one) for a normal variable.
    struct Line {
        ArrayXd x, weight;
    };

    // At a node of kappa: the label's law at the last correlation of output and omega, and the last
    // proxes, at which the next start, for both labels.
    struct Point {
        double correlation;
        ArrayXd p, e, prox[2];
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

    const Line& line(double step) {
        // The step changes by factors of root two only.
        const int exponent = static_cast<int>(std::floor(2.0 * std::log2(step)));
        Line& line = lines_[exponent];
        if (line.x.size() == 0) {
            const double h = std::exp2(0.5 * exponent);
            const Index half = static_cast<Index>(NORMAL_RANGE / h), count = 2 * half + 1;
            const Index padded = (count + LANES - 1) / LANES * LANES;
            line.x = ArrayXd::Zero(padded);
            line.weight = ArrayXd::Zero(padded);
            line.x.head(count) =
                h * ArrayXd::LinSpaced(count, -static_cast<double>(half), double(half));
            line.weight.head(count) = (-0.5 * line.x.head(count).square()).exp();
            line.weight /= line.weight.sum();
        }
        return line;
    }

    Averages averages(const Unknowns& u) {
        Averages all;
        for (std::size_t k = 0; k < tables_.kappa.size() && !exhausted(); ++k) {
            const Output o = output(u, k);
            const Line& grid = line(step(o));
            work_ += PROX_WORK * static_cast<double>(grid.x.size());
            Point& point = points_[k];
            if (point.p.size() != grid.x.size() || point.correlation != o.correlation) {
                point.correlation = o.correlation;
                const double tau = std::sqrt((1.0 - o.correlation) * (1.0 + o.correlation));
                label_.at(tables_.kappa[k], certain(k), o.correlation * grid.x, tau, point.p,
                          point.e);
            }
            const ArrayXd w = o.centre + o.deviation * grid.x;
            double g = 0.0, curvature = 0.0, square = 0.0, omega = 0.0, loss = 0.0;
            ArrayXd pull(w.size());
            for (int side = 0; side < 2; ++side) {
                const double sign = side == 0 ? 1.0 : -1.0;
                ArrayXd& f = point.prox[side];
                const ArrayXd at = sign * w;
                if (f.size() != at.size()) f = at.max(0.0);
                Loss::prox(at, o.V, f, pull);
                const ArrayXd bend = Loss::curvature(pull);
                ArrayXd share, part;
                if (side == 0) {
                    share = grid.weight * point.p;
                    part = grid.weight * point.e;
                } else {
                    share = grid.weight * (1.0 - point.p);
                    part = grid.weight * (o.correlation * grid.x - point.e);
                }
                g += sign * (share * pull).sum();
                curvature += (share * bend / (1.0 + o.V * bend)).sum();
                square += (share * pull.square()).sum();
                omega += sign * (part * pull).sum();
                loss += (share * Loss::value(f, pull)).sum();
            }
            const double weight = tables_.weight[k];
            const double mu0 = tables_.mean[k], mu1 = tables_.linear[k];
            const double mus2 = std::max(tables_.residual[k], 0.0), along = tables_.kappa[k] * mu1;
            all.linear_curvature += weight * mu1 * mu1 * curvature;
            all.residual_curvature += weight * mus2 * curvature;
            all.linear_square += weight * mu1 * mu1 * square;
            all.residual_square += weight * mus2 * square;
            all.linear_omega += weight * mu1 * omega;
            all.slope += weight * along * g;
            all.slope_curvature += weight * along * along * curvature;
            all.mean += weight * mu0 * g;
            all.mean_curvature += weight * mu0 * mu0 * curvature;
            all.loss += weight * loss;
        }
        return all;
    }

    // One iteration of section 7.
    Unknowns image(const Unknowns& u) {
        const Averages a = averages(u);
        loss_ = a.loss;
        const double R = setting_.alpha / setting_.beta, beta = setting_.beta;
        const double V1h = R * a.linear_curvature;
        const double Lambda = ridge_ + R * a.residual_curvature;
        const double v = isotropic_resolvent(Lambda, c_ * V1h, beta);
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

    Readout result(const State& state, Status status) {
        const Unknowns& u = state.u;
        Readout out{};
        out.risk = std::numeric_limits<double>::quiet_NaN();
        out.train_risk = state.loss;
        out.m = {u[M]};
        out.theta = {u[THETA]};
        out.psi = {u[PSI]};
        out.Q1 = {std::exp(u[Q1]) + u[PSI] * u[PSI]};
        out.q2 = {std::exp(u[Q2])};
        out.V1 = {std::exp(u[V1])};
        out.V2 = {std::exp(u[V2])};
        out.status = status;
        out.iterations = iterations_;
        out.residual = state.size;
        return out;
    }

    const Tables& tables_;
    double c_;
    LabelAverage label_;
    const SignLaw& law_;
    Setting setting_;
    std::vector<Point> points_;
    std::map<int, Line> lines_;
    bool has_mean_;
    double ridge_ = 0.0;
    Index iterations_ = 0;
    double work_ = 0.0, loss_ = 0.0;
};

}  // namespace

Readout solve_signs(const Tables& tables, double variance, double alignment, const SignLaw& law,
                    const Setting& setting, SignLoss loss) {
    if (loss == SignLoss::SQUARE)
        return Solver<Square>(tables, variance, alignment, law, setting).solve();
    return Solver<Logistic>(tables, variance, alignment, law, setting).solve();
}

double sign_error(const Tables& tables, double alignment, const SignLaw& law,
                  const Readout& readout) {
    return Solver<Logistic>(tables, 1.0, alignment, law, Setting{}).class_error(readout);
}

}  // namespace overparam::giant_step
