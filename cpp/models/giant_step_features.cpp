// Conditional features of an activation given the spike's component: section 3 of
// docs/papers/giant_step.md.
#include <algorithm>
#include <cmath>

#include "math/gauss.hpp"
#include "models/giant_step.hpp"

namespace overparam::giant_step {

namespace {

constexpr double PI = 3.14159265358979323846;
// Half-width of a Gaussian average in standard deviations.
constexpr double REACH = 8.7;

struct Feature {
    double mean, linear, residual, curvature;
};

double density(double t) { return std::exp(-0.5 * t * t) / std::sqrt(2.0 * PI); }
double upper_tail(double t) { return 0.5 * std::erfc(t / std::sqrt(2.0)); }

// max(x, 0) = x/2 + |x|/2: the residual is even in k, and small on the side where t < 0.
Feature relu(double k, double c) {
    const double deviation = std::sqrt(c), t = k / deviation, phi = density(t);
    const double a = std::abs(t), tail = upper_tail(a), mean = phi - a * tail;
    const double residual = (a * a + 1.0) * tail - a * phi - mean * mean - tail * tail;
    return {deviation * mean + std::max(k, 0.0), upper_tail(-t), c * std::max(residual, 0.0),
            0.5 * phi / deviation};
}

// The residual is 4 int_0^rho (exp(-h^2/(1 + t))/sqrt(1 - t^2) - exp(-h^2)) dt/(2 pi) with
// rho = c/(1 + c) and h^2 = k^2/(1 + c); t = sin(angle).
Feature erf(double k, double c, const Quadrature& rule) {
    const double h2 = k * k / (1.0 + c), angle = std::asin(c / (1.0 + c));
    const double slope = std::sqrt(2.0 / (PI * (1.0 + c))) * std::exp(-0.5 * h2);
    double sum = 0.0;
    for (std::size_t i = 0; i < rule.nodes.size(); ++i) {
        const double a = angle * rule.nodes[i], t = std::sin(a);
        // 1 - cos(a) without cancellation.
        const double versed = 2.0 * std::sin(0.5 * a) * std::sin(0.5 * a);
        sum += rule.weights[i] * std::exp(-h2 / (1.0 + t)) *
               (-std::expm1(-h2 * t / (1.0 + t)) * std::cos(a) + versed);
    }
    return {std::erf(k / std::sqrt(2.0 * (1.0 + c))), slope, 2.0 / PI * angle * sum,
            -0.5 * slope * k / (1.0 + c)};
}

Feature sine(double k, double c, double slope, double frequency) {
    const double a = c * frequency * frequency, decay = std::exp(-0.5 * a);
    const double s = std::sin(frequency * k), co = std::cos(frequency * k);
    // decay^2 (sinh(a) - a) and (1 - decay^2)^2/2; for small a by series.
    double odd = 0.5 * -std::expm1(-2.0 * a) - a * std::exp(-a);
    if (a < 0.1) {
        const double a2 = a * a;
        odd = std::exp(-a) * a * a2 / 6.0 *
              (1.0 + a2 / 20.0 * (1.0 + a2 / 42.0 * (1.0 + a2 / 72.0 * (1.0 + a2 / 110.0))));
    }
    const double even = 0.5 * std::expm1(-a) * std::expm1(-a);
    return {slope * k + decay * s, slope + frequency * decay * co, s * s * even + co * co * odd,
            -0.5 * frequency * frequency * decay * s};
}

Feature polynomial(double k, double c, const double* p) {
    const double second = 2.0 * p[2] + 6.0 * p[3] * k, third = 6.0 * p[3];
    return {p[0] + k * (p[1] + k * (p[2] + k * p[3])) + 0.5 * c * second,
            p[1] + k * (2.0 * p[2] + 3.0 * p[3] * k) + 0.5 * c * third,
            c * c * (0.5 * second * second + c * third * third / 6.0), 0.5 * second};
}

}  // namespace

Features closed_features(const ClosedForm& s, const std::vector<double>& k,
                         const std::vector<double>& c) {
    const std::size_t count = k.size();
    Features out{std::vector<double>(count), std::vector<double>(count), std::vector<double>(count),
                 std::vector<double>(count)};
    static const Quadrature rule = gauss_legendre(24);
    for (std::size_t i = 0; i < count; ++i) {
        Feature f{};
        switch (s.kind) {
            case ClosedForm::Kind::RELU:
                f = relu(k[i], c[i]);
                break;
            case ClosedForm::Kind::ERF:
                f = erf(k[i], c[i], rule);
                break;
            case ClosedForm::Kind::SINE:
                f = sine(k[i], c[i], s.slope, s.frequency);
                break;
            case ClosedForm::Kind::POLYNOMIAL:
                f = polynomial(k[i], c[i], s.coefficient);
                break;
        }
        out.mean[i] = f.mean, out.linear[i] = f.linear;
        out.residual[i] = f.residual, out.curvature[i] = f.curvature;
    }
    return out;
}

Features lattice_features(const std::vector<double>& values, double start, double step,
                          const std::vector<double>& k, double deviation) {
    const Index reach = static_cast<Index>(std::ceil(REACH * deviation / step));
    const Index last = static_cast<Index>(values.size()) - 1;
    const double c = deviation * deviation;
    // The weight of the lattice point at distance offset + step j from k factors into one of the
    // offset, one of j, and a power.
    std::vector<double> gauss(static_cast<std::size_t>(reach) + 1);
    for (Index j = 0; j <= reach; ++j) {
        const double x = step * static_cast<double>(j);
        gauss[static_cast<std::size_t>(j)] = std::exp(-0.5 * x * x / c);
    }
    const std::size_t count = k.size();
    Features out{std::vector<double>(count), std::vector<double>(count), std::vector<double>(count),
                 std::vector<double>(count)};
    std::vector<double> weight(2 * static_cast<std::size_t>(reach) + 1);
    for (std::size_t i = 0; i < count; ++i) {
        const Index nearest = static_cast<Index>(std::llround((k[i] - start) / step));
        const double offset = start + step * static_cast<double>(nearest) - k[i];
        const double up = std::exp(-offset * step / c), down = 1.0 / up;
        double above = 1.0, below = 1.0;
        weight[static_cast<std::size_t>(reach)] = 1.0;
        for (Index j = 1; j <= reach; ++j) {
            above *= up, below *= down;
            weight[static_cast<std::size_t>(reach + j)] =
                gauss[static_cast<std::size_t>(j)] * above;
            weight[static_cast<std::size_t>(reach - j)] =
                gauss[static_cast<std::size_t>(j)] * below;
        }
        const Index low = std::max<Index>(nearest - reach, 0);
        const Index high = std::min<Index>(nearest + reach, last);
        const double* s = values.data();
        const double* w = weight.data() + (reach - nearest);
        const double z0 = (offset - step * static_cast<double>(nearest)) / deviation;
        const double dz = step / deviation;
        double total = 0.0, mean = 0.0, linear = 0.0, second = 0.0;
        // Deviations from the value in the middle, so that nothing cancels where s is flat.
        const double middle = s[std::clamp<Index>(nearest, 0, last)];
        for (Index j = low; j <= high; ++j) {
            const double z = z0 + dz * static_cast<double>(j), f = s[j] - middle;
            total += w[j];
            mean += w[j] * f;
            linear += w[j] * z * f;
            second += w[j] * (z * z - 1.0) * f;
        }
        mean /= total, linear /= total, second /= total;
        double residual = 0.0;
        for (Index j = low; j <= high; ++j) {
            const double z = z0 + dz * static_cast<double>(j);
            const double rest = s[j] - middle - mean - linear * z;
            residual += w[j] * rest * rest;
        }
        out.mean[i] = middle + mean;
        out.linear[i] = linear / deviation;
        out.residual[i] = residual / total;
        out.curvature[i] = 0.5 * second / c;
    }
    return out;
}

}  // namespace overparam::giant_step
