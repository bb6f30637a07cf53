// The spectrum of the bulk rows' covariance after one gradient step, along the spike and the
// teacher: docs/papers/giant_step.md, section 6.1.
#include <Eigen/Dense>
#include <algorithm>
#include <array>
#include <cmath>
#include <complex>
#include <deque>
#include <numeric>
#include <utility>

#include "math/gauss.hpp"
#include "models/giant_step.hpp"

namespace overparam::giant_step {

namespace {

using Eigen::ArrayXd;

constexpr double PI = 3.14159265358979323846;

// The grid of log label^2: its step, and the reach in steps of the interpolation of functions that
// are analytic in a strip of half width pi/2, to 1e-13 of their size.
constexpr double GRID_STEP = 0.2;
constexpr int REACH = 20;
// Labels whose square is below this fraction of the smallest that matters count as small as that.
constexpr double SMALLEST_SQUARE = 1e-9;
// The contour: step of the trapezoid rule in its parameter, and its end in units of the measure's
// scale, beyond which 1/t^4 is below rounding.
constexpr double CONTOUR_STEP = 0.3, CONTOUR_END = 5e4;
// Label noise: the range of a normal variable, the longest step of the trapezoid rule for it, its
// step in units of the labels' scale, and the shortest step in standard deviations before the rule
// is a graded one.
constexpr double NOISE_RANGE = 8.5, NOISE_STEP = 0.75, NOISE_SCALE = 0.14, NOISE_SHORTEST = 0.1;
constexpr int PANEL_NODES = 12;
// Steps of Newton's method before plain iteration, which converges always but slowly; steps in all.
constexpr int NEWTON_STEPS = 30, MAX_STEPS = 2000;

// The joint law of label y and projection omega, as far as averages of y^2, y^2 omega^2 and
// y^3 omega times functions of y^2 go, and moments E y^i omega^j.
struct Law {
    ArrayXd square;
    std::array<ArrayXd, 3> weight;
    double y1o1 = 0, y2 = 0, y2o2 = 0, y3o1 = 0, y4 = 0, y4o2 = 0, y5o1 = 0, y6 = 0;
};

// Nodes for averages over label + noise of functions that vary within `scale` of zero: the same
// ones for all labels, in cells [k, k + 1) of a lattice. A trapezoid rule with one node per cell,
// or Gauss's rule, on panels that halve towards zero.
class NoiseNodes {
  public:
    struct Node {
        double at, weight;
    };

    NoiseNodes(double sigma, double scale) {
        const double step = sigma * std::min(NOISE_STEP, NOISE_SCALE * scale / sigma);
        if (step >= NOISE_SHORTEST * sigma) {
            cell_ = step;
            plain_ = {{0.0, step}};
            return;
        }
        cell_ = sigma;
        const Quadrature rule = gauss_legendre(PANEL_NODES);
        const auto panel = [&](double left, double width, std::vector<Node>& nodes) {
            for (std::size_t k = 0; k < rule.nodes.size(); ++k)
                nodes.push_back({left + width * rule.nodes[k], width * rule.weights[k]});
        };
        panel(0.0, cell_, plain_);
        double right = cell_;
        for (; right > 0.25 * scale; right *= 0.5) panel(0.5 * right, 0.5 * right, graded_);
        panel(0.0, right, graded_);
    }

    double cell() const { return cell_; }

    // Those of cell k; the first below zero is the mirror image of the first above.
    void of(Index k, std::vector<Node>& out) const {
        const bool mirrored = !graded_.empty() && k == -1;
        out = !graded_.empty() && (k == 0 || mirrored) ? graded_ : plain_;
        const double start = mirrored ? 0.0 : cell_ * static_cast<double>(k);
        for (Node& n : out) n.at = start + (mirrored ? -n.at : n.at);
    }

  private:
    double cell_;
    std::vector<Node> plain_, graded_;
};

// Calls add(y, weight, weight omega, weight omega^2), summed over labels, at the nodes y of
// label + noise.
template <class F>
void convolve(const Labels& labels, double sigma, const NoiseNodes& rule, F add) {
    struct Sum {
        double zero, one, two;
    };
    struct Cell {
        std::vector<NoiseNodes::Node> nodes;
        std::vector<Sum> sums;
    };
    std::vector<std::size_t> order(labels.value.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::sort(order.begin(), order.end(),
              [&](std::size_t a, std::size_t b) { return labels.value[a] < labels.value[b]; });
    // Labels ascend, and with them the cells within their reach.
    std::deque<Cell> cells;
    Index first = 0;
    const auto finish = [&] {
        const Cell& c = cells.front();
        for (std::size_t n = 0; n < c.nodes.size(); ++n)
            add(c.nodes[n].at, c.sums[n].zero, c.sums[n].one, c.sums[n].two);
        cells.pop_front();
        ++first;
    };
    for (const std::size_t i : order) {
        const double y = labels.value[i], omega = labels.omega[i];
        const Index low = static_cast<Index>(std::floor((y - NOISE_RANGE * sigma) / rule.cell()));
        const Index high = static_cast<Index>(std::floor((y + NOISE_RANGE * sigma) / rule.cell()));
        while (!cells.empty() && first < low) finish();
        if (cells.empty()) first = low;
        while (first + static_cast<Index>(cells.size()) <= high) {
            Cell c;
            rule.of(first + static_cast<Index>(cells.size()), c.nodes);
            c.sums.assign(c.nodes.size(), Sum{0.0, 0.0, 0.0});
            cells.push_back(std::move(c));
        }
        for (Index k = low; k <= high; ++k) {
            Cell& c = cells[static_cast<std::size_t>(k - first)];
            for (std::size_t n = 0; n < c.nodes.size(); ++n) {
                const double x = (c.nodes[n].at - y) / sigma;
                const double w = labels.weight[i] * c.nodes[n].weight * std::exp(-0.5 * x * x) /
                                 (std::sqrt(2.0 * PI) * sigma);
                c.sums[n].zero += w, c.sums[n].one += w * omega, c.sums[n].two += w * omega * omega;
            }
        }
    }
    while (!cells.empty()) finish();
}

// The law at labels + noise, for functions of y^2 that vary over factors from `smallest`^2 upwards.
Law reduce(const Labels& labels, double noise_var, double smallest) {
    const double sigma = std::sqrt(noise_var);
    double second = noise_var;
    for (std::size_t i = 0; i < labels.value.size(); ++i)
        second += labels.weight[i] * labels.value[i] * labels.value[i];
    const double lowest = std::log(SMALLEST_SQUARE * std::min(smallest * smallest, second));
    double largest = 0.0;
    for (const double y : labels.value) largest = std::max(largest, std::abs(y));
    // Cells of noise nodes may reach one standard deviation further.
    largest += (NOISE_RANGE + 1.0) * sigma;
    const double start = lowest - REACH * GRID_STEP;
    const double range = std::max(2.0 * std::log(largest) - lowest, 0.0);
    const Index count = static_cast<Index>(range / GRID_STEP) + 2 * REACH + 2;
    Law law;
    for (ArrayXd& w : law.weight) w = ArrayXd::Zero(count);
    const double tau2 = REACH / PI;  // of the Gaussian that cuts the cardinal sine off
    using Kernel = Eigen::Array<double, 2 * REACH, 1>;
    Kernel decay;
    for (int s = 0; s < 2 * REACH; ++s) {
        const double x = s - REACH + 1;
        decay[s] = ((s + REACH) % 2 == 0 ? -1.0 : 1.0) * std::exp(-0.5 * x * x / tau2);
    }
    // A label with its weight, and that times omega and omega^2.
    const auto add = [&](double y, double zero, double one, double two) {
        const double square = y * y;
        const double w0 = zero * square, w1 = two * square, w2 = one * square * y;
        law.y1o1 += one * y;
        law.y2 += w0;
        law.y2o2 += w1;
        law.y3o1 += w2;
        law.y4 += w0 * square;
        law.y4o2 += w1 * square;
        law.y5o1 += w2 * square;
        law.y6 += w0 * square * square;
        if (square == 0.0) return;
        const double at = (std::max(std::log(square), lowest) - start) / GRID_STEP;
        const Index first = static_cast<Index>(at);
        // In (0, 1): what is divided out below is not exactly zero.
        const double rest = std::max(at - static_cast<double>(first), 1e-100);
        // sinc(rest - x) exp(-(rest - x)^2/(2 tau2)) at x = 1 - REACH .. REACH.
        const double front = std::sin(PI * rest) / PI * std::exp(-0.5 * rest * rest / tau2);
        const double ratio = std::exp(rest / tau2);
        const double inverse = 1.0 / ratio;
        Kernel power, kernel;
        power[REACH - 1] = front;
        for (int s = REACH; s < 2 * REACH; ++s) power[s] = power[s - 1] * ratio;
        for (int s = REACH - 1; s > 0; --s) power[s - 1] = power[s] * inverse;
        for (int s = 0; s < 2 * REACH; ++s)
            kernel[s] = decay[s] * power[s] / (rest - static_cast<double>(s - REACH + 1));
        const Index from = first - REACH + 1;
        law.weight[0].segment(from, 2 * REACH) += w0 * kernel;
        law.weight[1].segment(from, 2 * REACH) += w1 * kernel;
        law.weight[2].segment(from, 2 * REACH) += w2 * kernel;
    };
    if (sigma == 0.0) {
        for (std::size_t i = 0; i < labels.value.size(); ++i) {
            const double omega = labels.omega[i], weight = labels.weight[i];
            add(labels.value[i], weight, weight * omega, weight * omega * omega);
        }
    } else {
        convolve(labels, sigma, NoiseNodes(sigma, smallest), add);
    }
    law.square = (start + GRID_STEP * ArrayXd::LinSpaced(count, 0.0, double(count - 1))).exp();
    return law;
}

// Averages E[y^2/D], E[y^2 omega^2/D], E[y^3 omega/D] with D = 1 + y^2 q.
class Averages {
  public:
    explicit Averages(const Law& law) : law_(law) {}

    void at(Complex q) {
        const auto real = 1.0 + law_.square * q.real();
        const auto imaginary = law_.square * q.imag();
        const ArrayXd norm = (real.square() + imaginary.square()).inverse();
        real_ = real * norm;
        imaginary_ = -imaginary * norm;
    }
    Complex average(int which) const {
        const ArrayXd& w = law_.weight[which];
        return {(w * real_).sum(), (w * imaginary_).sum()};
    }
    // d/dq of average(0)
    Complex slope() const {
        const ArrayXd w = law_.weight[0] * law_.square;
        return {-(w * (real_.square() - imaginary_.square())).sum(),
                -2.0 * (w * real_ * imaginary_).sum()};
    }

  private:
    const Law& law_;
    ArrayXd real_, imaginary_;
};

// A symmetric 2 x 2 matrix over teacher direction and the part of the gradient orthogonal to it,
// or over spike direction and the part of the teacher orthogonal to that.
template <class T>
struct Plane {
    T first, mixed, second;
};

// In the basis of the spike v = cosine e1 + sine e2 and of sine e1 - cosine e2.
template <class T>
Plane<T> turned(const Plane<T>& m, double cosine, double sine) {
    const double c2 = cosine * cosine, s2 = sine * sine, cs = cosine * sine;
    return {c2 * m.first + 2.0 * cs * m.mixed + s2 * m.second,
            cs * (m.first - m.second) + (s2 - c2) * m.mixed,
            s2 * m.first - 2.0 * cs * m.mixed + c2 * m.second};
}

}  // namespace

Modes step_modes(const Labels& labels, double noise_var, double samples,
                 const std::vector<double>& spread) {
    const double widest = *std::max_element(spread.begin(), spread.end());
    const double gap = 1.0 / widest;  // from the spectrum of M2 to the poles
    const Law law = reduce(labels, noise_var, std::sqrt(0.5 * gap * samples));
    const double y2 = law.y2, orthogonal = std::sqrt(y2 / samples);
    const double norm = std::hypot(law.y1o1, orthogonal);
    const double cosine = law.y1o1 / norm, sine = orthogonal / norm;

    // Moments of the four measures: of degree 0, 1 and 2.
    const double root = std::sqrt(samples * y2);
    const Plane<double> one =
        turned<double>({law.y2o2, law.y3o1 / root, y2 + law.y4 / (samples * y2)}, cosine, sine);
    const Plane<double> two =
        turned<double>({law.y2o2 * law.y2o2 + law.y4o2 / samples,
                        (law.y3o1 * (law.y2o2 + y2) + law.y5o1 / samples) / root,
                        y2 * y2 + 3.0 * law.y4 / samples +
                            (law.y6 / samples + law.y3o1 * law.y3o1) / (samples * y2)},
                       cosine, sine);
    const std::array<std::array<double, 3>, 4> moment = {{{1.0, y2, y2 * y2 + law.y4 / samples},
                                                          {1.0, one.first, two.first},
                                                          {0.0, one.mixed, two.mixed},
                                                          {1.0, one.second, two.second}}};

    // Atoms at 0, near and far that have these moments: the rest decays as 1/t^4 on the contour.
    const double near = y2;
    double far = near;
    double scale = 0.0;
    for (const std::size_t i : {0u, 1u, 3u}) {
        far = std::max(far, moment[i][2] / moment[i][1]);
        scale = std::max(scale, std::sqrt(moment[i][2]));
    }
    far *= 2.0;
    std::array<std::array<double, 3>, 4> atom;
    for (std::size_t i = 0; i < 4; ++i) {
        const auto& m = moment[i];
        atom[i][2] = (m[2] - near * m[1]) / (far * (far - near));
        atom[i][1] = (m[1] - atom[i][2] * far) / near;
        atom[i][0] = m[0] - atom[i][1] - atom[i][2];
    }

    // t = -gap/2 (1 - i sinh u): the trapezoid rule in u converges exponentially, since nothing is
    // singular but on the two real half lines t >= 0 and t <= -gap.
    const double end = std::max(std::asinh(2.0 * CONTOUR_END * scale / gap), 2.0);
    const Index count = static_cast<Index>(std::ceil(end / CONTOUR_STEP));
    Modes modes;
    std::vector<Complex> nodes;
    const std::array<std::vector<Complex>*, 4> measures = {&modes.weight, &modes.along,
                                                           &modes.across, &modes.orthogonal};
    Averages averages(law);
    Complex g = 0.0, previous = 0.0;
    for (Index j = 0; j < count; ++j) {
        const double u = (static_cast<double>(j) + 0.5) * CONTOUR_STEP;
        const Complex z(0.5 * gap, -0.5 * gap * std::sinh(u));
        g = j == 0 ? 1.0 / (z + y2) : g * (previous + y2) / (z + y2);
        previous = z;
        // Newton's method for g (z + E[y^2/D]) = 1. In the right half plane the solution is unique.
        bool exact = false;
        for (int step = 0; !exact && step < MAX_STEPS; ++step) {
            averages.at(g / samples);
            const Complex e = averages.average(0);
            const Complex change = (g * (z + e) - 1.0) / (z + e + g * averages.slope() / samples);
            const Complex next = g - change;
            exact = std::abs(change) < 1e-9 * std::abs(g);
            g = next.real() > 0.0 && step < NEWTON_STEPS ? next : 1.0 / (z + e);
        }
        averages.at(g / samples);
        const Complex teacher = 1.0 / (z + averages.average(1));
        const Complex pull = -g / samples * averages.average(2);  // E[y omega/D] - E[y omega]
        const Plane<Complex> inverse = turned<Complex>(
            {teacher, teacher * pull / orthogonal,
             g * averages.average(0) / y2 + teacher * pull * pull / (orthogonal * orthogonal)},
            cosine, sine);
        const std::array<Complex, 4> resolvent = {g, inverse.first, inverse.mixed, inverse.second};
        const double factor = 0.5 * gap * CONTOUR_STEP / PI * std::cosh(u);
        for (std::size_t i = 0; i < 4; ++i) {
            const auto& a = atom[i];
            measures[i]->push_back(
                factor * (resolvent[i] - a[0] / z - a[1] / (z + near) - a[2] / (z + far)));
        }
        nodes.push_back(-z);
    }
    for (std::size_t i = 0; i < 4; ++i)
        for (const double a : atom[i]) measures[i]->push_back(a);
    for (const double t : {0.0, near, far}) nodes.push_back(t);
    for (const double s : spread) {
        for (const Complex& t : nodes) modes.covariance.push_back(1.0 + s * t);
        modes.known_along.push_back(1.0 + s * moment[1][1]);
    }
    return modes;
}

}  // namespace overparam::giant_step
