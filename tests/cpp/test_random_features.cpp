#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <complex>
#include <initializer_list>
#include <vector>

#include "math/gauss.hpp"
#include "math/secular.hpp"
#include "math/talbot.hpp"
#include "models/random_features.hpp"

using namespace overparam;
using namespace overparam::random_features;
using doctest::Approx;

namespace {

constexpr Activation ALL[] = {Activation::ERF,    Activation::RELU,   Activation::QUAD,
                              Activation::SQUARE, Activation::LINEAR, Activation::SIGN};

double apply(Activation g, double x) {
    switch (g) {
        case Activation::ERF:
            return std::erf(x * M_SQRT1_2);
        case Activation::RELU:
            return std::max(x, 0.0);
        case Activation::QUAD:
            return (x * x - 1.0) * M_SQRT1_2;
        case Activation::SQUARE:
            return x * x;
        case Activation::LINEAR:
            return x;
        default:
            return x > 0.0 ? 1.0 : -1.0;
    }
}

// E f(x) for standard normal x, by quadrature on both sides of 0.
template <class F>
double mean(F&& f) {
    const Quadrature rule = gauss_legendre(100);
    double sum = 0.0;
    for (int i = 0; i < 100; ++i) {
        const double x = 14.0 * rule.nodes[i];
        const double weight =
            14.0 * rule.weights[i] * std::exp(-0.5 * x * x) / std::sqrt(2.0 * M_PI);
        sum += weight * (f(x) + f(-x));
    }
    return sum;
}

double energy(Activation g) {
    return mean([g](double x) { return apply(g, x) * apply(g, x); });
}

Modes one_unit(Activation g, Index dim) {
    return sphere_modes(g, dim, {g, {1.0}, {1.0}, energy(g)});
}

double total(const std::vector<double>& x) {
    double sum = 0.0;
    for (const double value : x) sum += value;
    return sum;
}

}  // namespace

TEST_CASE("Hermite coefficients are those of a quadrature") {
    for (const Activation g : ALL) {
        const HermiteSeries& series = hermite_series(g);
        const auto mu = hermite_coefficients(series, 8),
                   kappa = hermite_products(series, series, 8);
        double factorial = 1.0;
        for (int k = 0; k <= 8; ++k) {
            if (k > 1) factorial *= k;
            const double expected = mean([&](double x) {
                double previous = 0.0, value = 1.0;
                for (int n = 0; n < k; ++n) {
                    const double next = x * value - n * previous;
                    previous = value;
                    value = next;
                }
                return apply(g, x) * value;
            });
            CHECK(mu[k] == Approx(expected).epsilon(1e-12).scale(1.0));
            CHECK(kappa[k] == Approx(expected * expected / factorial).epsilon(1e-12).scale(1.0));
        }
    }
}

TEST_CASE("A Gauss rule has the moments of its measure") {
    std::vector<double> points, weights;
    for (int i = 0; i < 500; ++i) {
        points.push_back(std::log(3.0 + i));
        weights.push_back(std::pow(3.0 + i, -2.5));
    }
    const Quadrature rule = gauss_rule(points, weights, 9);
    for (int degree = 0; degree < 18; ++degree) {
        double expected = 0.0, sum = 0.0;
        for (std::size_t i = 0; i < points.size(); ++i)
            expected += weights[i] * std::pow(points[i], degree);
        for (std::size_t i = 0; i < rule.nodes.size(); ++i)
            sum += rule.weights[i] * std::pow(rule.nodes[i], degree);
        CHECK(sum == Approx(expected).epsilon(1e-12));
    }
}

TEST_CASE("Laplace transforms are inverted") {
    const Talbot talbot;
    for (const double t : {1e-3, 0.5, 3.0, 40.0}) {
        const double decay = talbot([](std::complex<double> p) { return 1.0 / (p + 2.0); }, t);
        CHECK(decay == Approx(std::exp(-2.0 * t)).epsilon(1e-11).scale(1.0));
        const double branch = talbot(
            [](std::complex<double> p) { return 1.0 / (std::sqrt(p) * std::sqrt(p + 1.0)); }, t);
        CHECK(
            branch ==
            Approx(std::exp(-0.5 * t) * std::cyl_bessel_i(0.0, 0.5 * t)).epsilon(1e-11).scale(1.0));
    }
}

TEST_CASE("Roots of the secular equation") {
    // Two close poles, a tiny weight and a large one.
    const std::vector<double> poles = {-3.0, -1.0, -1.0 + 1e-13, 0.0, 2.0};
    const std::vector<double> weights = {0.5, 1e-3, 2e-3, 1e-30, 4.0};
    const auto roots = secular_roots(poles, weights);
    double trace = 0.0;
    for (std::size_t i = 0; i < roots.size(); ++i) {
        CHECK(roots[i].distance(poles, i) > 0.0);
        if (i + 1 < poles.size()) CHECK(roots[i].distance(poles, i + 1) < 0.0);
        double value = 1.0, size = 1.0;
        for (std::size_t k = 0; k < poles.size(); ++k) {
            value -= weights[k] / roots[i].distance(poles, k);
            size += std::abs(weights[k] / roots[i].distance(poles, k));
        }
        CHECK(std::abs(value) < 1e-13 * size);
        trace += roots[i].distance(poles, i);
    }
    CHECK(trace == Approx(total(weights)).epsilon(1e-13));
}

TEST_CASE("The rank-one response is that of the equations, in steps and in time") {
    const std::vector<double> rates = {0.03, 0.4, 0.4, 1.1}, start = {0.2, 0.0, 0.7, 0.1};
    const double eta = 1.3, source = 0.25, K = 4.0;
    std::vector<double> poles, weights, load, D = start;
    for (std::size_t k = 0; k < rates.size(); ++k) {
        const double lambda = rates[k] / K;
        poles.push_back(-2.0 * eta * lambda);
        weights.push_back(eta * eta * lambda * lambda);
        load.push_back(lambda * start[k]);
    }
    const std::vector<double> steps = {0.0, 1.0, 7.0, 100.0};
    const auto S = rank_one_response(poles, weights, load, source, steps, true);
    std::vector<double> lambda, at;
    for (const double rate : rates) lambda.push_back(rate / K);
    const auto loop = rank_one_steps(lambda, load, source, std::vector<double>(100, eta),
                                     {0, 1, 7, 100}, false, true);
    for (std::size_t i = 0; i < steps.size(); ++i) CHECK(S[i] == Approx(loop[i]).epsilon(1e-13));
    // Continuous time is the limit of small steps: Richardson's extrapolation of the map.
    const auto continuous = rank_one_response(poles, weights, load, source, {5.0}, false);
    const auto map = [&](int parts) {
        std::vector<double> p = poles, w = weights;
        for (double& pole : p) pole /= parts;
        for (double& weight : w) weight /= parts;
        return rank_one_response(p, w, load, source, {5.0 * parts}, true)[0];
    };
    CHECK(2.0 * map(2000) - map(1000) == Approx(continuous[0]).epsilon(1e-6));
}

TEST_CASE("Kernels on the sphere") {
    for (const Activation g : ALL) {
        for (const Index dim : {3, 4, 7, 30, 400}) {
            const SphereKernel kernel = sphere_kernel(g, dim, 60);
            CHECK(total(kernel.energy) + kernel.tail == Approx(energy(g)).epsilon(1e-12));
            const Modes modes = one_unit(g, dim);
            CHECK(total(modes.energy) + modes.tail == Approx(energy(g)).epsilon(1e-11));
            // By quadrature of the kernel as a power series, at low degree.
            const auto kappa = hermite_products(hermite_series(g), hermite_series(g), 4000);
            for (const int l : {0, 1, 2, 3}) {
                const double n = static_cast<double>(dim);
                double expected = 0.0;
                for (int k = l; k <= 4000; k += 2) {
                    const double c = std::lgamma(k + 1.0) + std::lgamma(0.5 * n) +
                                     std::lgamma(0.5 * (k - l + 1.0)) - std::lgamma(k - l + 1.0) -
                                     std::lgamma(0.5 * (k + l + n)) - l * M_LN2 -
                                     0.5 * std::log(M_PI);
                    expected += kappa[k] * std::exp(c);
                }
                const bool slow = g == Activation::SIGN || g == Activation::RELU;
                CHECK(kernel.eigenvalue[l] ==
                      Approx(expected).epsilon(slow && dim < 30 ? 1e-4 : 1e-9));
            }
        }
    }
}

TEST_CASE("The error of the best fit") {
    for (const Activation g : ALL) {
        const Modes modes = one_unit(g, 12);
        double last = energy(g);
        for (const double width : {1.0, 10.0, 1e2, 1e4, 1e6, 1e8}) {
            const double risk = minimal(modes, width);
            CHECK(risk <= last);
            CHECK(risk >= 0.0);
            const bool exact = modes.tail == 0.0 && width >= total(modes.multiplicity);
            CHECK((risk == 0.0) == exact);
            if (!exact) CHECK(width_for(modes, risk / energy(g)) == Approx(width).epsilon(1e-9));
            last = risk;
        }
    }
    // relu: K^{-3/(N - 1)} at large K.
    const Modes relu = one_unit(Activation::RELU, 4);
    CHECK(std::log(minimal(relu, 1e12) / minimal(relu, 1e9)) / std::log(1e3) ==
          Approx(-1.0).epsilon(1e-3));
}

TEST_CASE("Ends of learning curves") {
    for (const Activation g : ALL) {
        for (const double width : {5.0, 200.0, 1e7}) {
            const Modes modes = one_unit(g, 9);
            const double q = energy(g), lr = 0.6 / q, x = 0.5 * lr * q;
            const Training sgd{width, lr, 0.2, 0.1, false}, flow{width, lr, 0.2, 0.1, true};
            const auto begin = learning_curve(modes, sgd, {0.0, 1e-12});
            CHECK(begin[0] == Approx(1.1 * q).epsilon(1e-10));
            CHECK(begin[1] == Approx(1.1 * q).epsilon(1e-4));
            // Null modes keep their random start, which adds nothing to the risk.
            const double floor = minimal(modes, width);
            const auto end = learning_curve(modes, sgd, {1.0, 1e13});
            CHECK(end[1] == Approx((floor + 0.2) / (1.0 - x) - 0.2).epsilon(1e-5));
            CHECK(learning_curve(modes, flow, {1.0, 1e13})[1] ==
                  Approx(floor).epsilon(1e-5).scale(1e-3));
        }
    }
}

TEST_CASE("A learning rate above the limit grows at the rate of the pole") {
    const Modes modes = one_unit(Activation::ERF, 30);
    const Training training{60.0, 7.0, 0.0, 0.0, false};
    const auto risk = learning_curve(modes, training, {20.0, 40.0, 60.0});
    CHECK(std::log(risk[2] / risk[1]) == Approx(std::log(risk[1] / risk[0])).epsilon(1e-2));
    CHECK(risk[1] > 2.0 * risk[0]);
}
