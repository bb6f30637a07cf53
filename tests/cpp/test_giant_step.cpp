#include <doctest/doctest.h>

#include <cmath>
#include <utility>
#include <vector>

#include "models/giant_step.hpp"

using namespace overparam;
using namespace overparam::giant_step;

namespace {

using Kind = ClosedForm::Kind;
constexpr double PI = 3.14159265358979323846;

struct Averages {
    double mean, linear, residual, curvature;
};

// Averages over z of s(k + sqrt(c) z) by midpoints, which a kink at 0 falls between.
template <class S>
Averages brute(S s, double k, double c) {
    const double deviation = std::sqrt(c), h = deviation * 2e-5;
    double total = 0.0, first = 0.0, linear = 0.0, second = 0.0, square = 0.0;
    for (Index i = -500000; i < 500000; ++i) {
        const double x = (static_cast<double>(i) + 0.5) * h + std::floor(k / h) * h;
        const double z = (x - k) / deviation, w = std::exp(-0.5 * z * z), f = s(x);
        total += w, first += w * f, linear += w * z * f;
        second += w * (z * z - 1.0) * f, square += w * f * f;
    }
    first /= total, linear /= total * deviation, second /= total, square /= total;
    return {first, linear, square - first * first - c * linear * linear, 0.5 * second / c};
}

Modes isotropic(const std::vector<double>& c) {
    Modes modes{{1.0}, {}, {1.0}, {0.0}, {1.0}};
    modes.covariance.assign(c.begin(), c.end());
    return modes;
}

// tanh at strengths r and variances c, for a target sin at alignment gamma, on a uniform grid.
Tables tables(const std::vector<double>& r, const std::vector<double>& c, double gamma) {
    Tables t;
    double total = 0.0;
    for (int i = -170; i <= 170; ++i) {
        t.kappa.push_back(0.05 * i);
        t.weight.push_back(std::exp(-0.5 * t.kappa.back() * t.kappa.back()));
        total += t.weight.back();
    }
    for (double& w : t.weight) w /= total;
    std::vector<double> values;
    for (int i = -2000; i <= 2000; ++i) values.push_back(std::tanh(0.02 * i));
    for (std::size_t g = 0; g < r.size(); ++g) {
        std::vector<double> k;
        for (double kappa : t.kappa) k.push_back(r[g] * kappa);
        const Features f = lattice_features(values, -40.0, 0.02, k, std::sqrt(c[g]));
        t.mean.insert(t.mean.end(), f.mean.begin(), f.mean.end());
        t.linear.insert(t.linear.end(), f.linear.begin(), f.linear.end());
        t.residual.insert(t.residual.end(), f.residual.begin(), f.residual.end());
        t.curvature.insert(t.curvature.end(), f.curvature.begin(), f.curvature.end());
    }
    std::vector<double> k;
    for (double kappa : t.kappa) k.push_back(gamma * kappa);
    const double rho2 = 1.0 - gamma * gamma;
    const Features h =
        closed_features({Kind::SINE, 0.0, 1.0}, k, std::vector<double>(k.size(), rho2));
    for (std::size_t i = 0; i < k.size(); ++i) {
        const double h1 = std::sqrt(rho2) * h.linear[i];
        t.target.push_back(h.mean[i]);
        t.target_linear.push_back(h1);
        t.target_second.push_back(h.mean[i] * h.mean[i] + h1 * h1 + h.residual[i]);
    }
    return t;
}

Setting setting(const std::vector<double>& fraction) {
    return {1.5, 1.0, 0.1, 0.0, fraction, std::vector<double>(fraction.size(), 0.0)};
}

}  // namespace

TEST_CASE("closed forms of the features are Gaussian averages") {
    const std::vector<std::pair<ClosedForm, double (*)(double)>> forms = {
        {{Kind::RELU}, [](double x) { return x > 0.0 ? x : 0.0; }},
        {{Kind::ERF}, [](double x) { return std::erf(x / std::sqrt(2.0)); }},
        {{Kind::SINE, 1.0, 2.0}, [](double x) { return x + std::sin(2.0 * x); }},
        {{Kind::POLYNOMIAL, 0.0, 0.0, {0.5, -1.0, 0.3, 0.2}},
         [](double x) { return 0.5 - x + 0.3 * x * x + 0.2 * x * x * x; }}};
    for (const auto& [form, s] : forms) {
        for (const auto& [k, c] : {std::pair{0.7, 1.3}, {-2.0, 0.5}, {0.0, 2.0}}) {
            const Features f = closed_features(form, {k}, {c});
            const Averages a = brute(s, k, c);
            CHECK(f.mean[0] == doctest::Approx(a.mean).epsilon(1e-8));
            CHECK(f.linear[0] == doctest::Approx(a.linear).epsilon(1e-8));
            CHECK(f.residual[0] == doctest::Approx(a.residual).epsilon(1e-8));
            CHECK(f.curvature[0] == doctest::Approx(a.curvature).epsilon(1e-7));
        }
    }
}

TEST_CASE("residuals stay accurate where an activation saturates, and at small variance") {
    // erf(x/sqrt 2) = 2 Phi(x) - 1, and its slope at k is the density: Var = c slope^2 + O(c^2).
    const double k = 1.0, c = 1e-8, curvature = -std::sqrt(2.0 / PI) * k * std::exp(-0.5 * k * k);
    const Features f = closed_features({Kind::ERF}, {k}, {c});
    CHECK(f.residual[0] == doctest::Approx(0.5 * c * c * curvature * curvature).epsilon(1e-6));
    const Features sine = closed_features({Kind::SINE, 0.0, 1.0}, {k}, {c});
    CHECK(sine.residual[0] ==
          doctest::Approx(0.5 * c * c * std::sin(k) * std::sin(k)).epsilon(1e-6));
    const Features relu = closed_features({Kind::RELU}, {9.0, -9.0, 40.0}, {1.0, 1.0, 1.0});
    CHECK(relu.residual[0] == relu.residual[1]);
    CHECK(relu.residual[0] > 0.0);
    CHECK(relu.residual[0] < 1e-17);
    CHECK(relu.residual[2] >= 0.0);
}

TEST_CASE("the lattice gives the closed forms") {
    std::vector<double> values;
    for (int i = -200; i <= 200; ++i) values.push_back(std::sin(0.2 * i));
    const std::vector<double> k = {-3.0, 0.11, 2.5};
    const Features f = lattice_features(values, -40.0, 0.2, k, 1.3);
    const Features g = closed_features({Kind::SINE, 0.0, 1.0}, k, {1.69, 1.69, 1.69});
    for (std::size_t i = 0; i < k.size(); ++i) {
        CHECK(f.mean[i] == doctest::Approx(g.mean[i]).epsilon(1e-13));
        CHECK(f.linear[i] == doctest::Approx(g.linear[i]).epsilon(1e-13));
        CHECK(f.residual[i] == doctest::Approx(g.residual[i]).epsilon(1e-13));
        CHECK(f.curvature[i] == doctest::Approx(g.curvature[i]).epsilon(1e-13));
    }
}

TEST_CASE("the resolvent solves its equations, with one mode and with several") {
    const std::vector<double> fraction = {0.4, 0.6}, V1h = {1.2, 0.3, 0.3, 0.8},
                              Lambda = {0.7, 0.4};
    const Resolvent one = resolvent(isotropic({1.3, 0.9}), fraction, 0.8, V1h, Lambda);
    const double trace = V1h[0] * one.V1[0] + 2.0 * V1h[1] * one.V1[1] + V1h[3] * one.V1[3] +
                         Lambda[0] * one.V2[0] + Lambda[1] * one.V2[1];
    CHECK(trace == doctest::Approx(1.0).epsilon(1e-14));
    CHECK(one.v[0] == doctest::Approx(0.5231112719125216).epsilon(1e-12));
    CHECK(one.v[1] == doctest::Approx(1.0926072352308729).epsilon(1e-12));

    Modes split = isotropic({1.3, 0.9});
    split.weight = {0.25, 0.75};
    split.covariance = {1.3, 1.3, 0.9, 0.9};
    split.along = split.across = split.orthogonal = split.weight;
    const Resolvent two = resolvent(split, fraction, 0.8, V1h, Lambda);
    for (int g = 0; g < 2; ++g) CHECK(two.v[g] == doctest::Approx(one.v[g]).epsilon(1e-13));

    // A quadratic for one group: also where Lambda v tends to 0.
    for (double small : {1e-10, 1e-3, 1.0}) {
        for (double beta : {0.5, 1.0, 2.0}) {
            const Resolvent r = resolvent(isotropic({1.3}), {1.0}, beta, {0.7}, {small});
            const double v = r.v[0], a = 1.3 * 0.7;
            CHECK(small * v + a * v / (1.0 + beta * a * v) == doctest::Approx(1.0).epsilon(1e-12));
        }
    }
}

TEST_CASE("groups may be split, and a sign changed where the activation is odd") {
    const Tables whole = tables({1.2}, {1.1}, 0.9);
    const Readout one = solve_square(whole, isotropic({1.1}), setting({1.0}));
    CHECK(one.status == Status::SUCCESS);
    CHECK(one.risk == doctest::Approx(0.07574896899007806).epsilon(1e-10));
    for (double sign : {1.0, -1.0}) {
        const Tables halves = tables({1.2, sign * 1.2}, {1.1, 1.1}, 0.9);
        const Readout two = solve_square(halves, isotropic({1.1, 1.1}), setting({0.3, 0.7}));
        CHECK(two.risk == doctest::Approx(one.risk).epsilon(1e-11));
        CHECK(two.train_risk == doctest::Approx(one.train_risk).epsilon(1e-11));
        CHECK(two.m[0] + sign * two.m[1] == doctest::Approx(one.m[0]).epsilon(1e-9));
    }
}

TEST_CASE("modes of one covariance are isotropic rows, and the norm term has its own functions") {
    const Tables t = tables({1.2, 0.5}, {1.1, 0.8}, 0.9);
    const std::vector<double> fraction = {0.3, 0.7};
    Setting s = setting(fraction);
    const Readout one = solve_square(t, isotropic({1.1, 0.8}), s);
    Modes split{{0.25, 0.75}, {1.1, 1.1, 0.8, 0.8}, {0.6, 0.4}, {0.3, -0.3}, {0.1, 0.9}};
    const Readout two = solve_square(t, split, s);
    CHECK(two.risk == doctest::Approx(one.risk).epsilon(1e-11));
    for (int i = 0; i < 4; ++i) CHECK(two.Q1[i] == doctest::Approx(one.Q1[i]).epsilon(1e-9));
    for (int g = 0; g < 2; ++g) {
        CHECK(two.theta[g] == doctest::Approx(one.theta[g]).epsilon(1e-8));
        CHECK(split.variance_along()[g] == doctest::Approx(g ? 0.8 : 1.1));
    }
    // A slope too small to matter takes the way without a common frame.
    s.norm_slope = {1e-14, 1e-14};
    const Readout three = solve_square(t, isotropic({1.1, 0.8}), s);
    CHECK(three.risk == doctest::Approx(one.risk).epsilon(1e-10));
    for (int i = 0; i < 4; ++i) {
        CHECK(three.Q1[i] == doctest::Approx(one.Q1[i]).epsilon(1e-8));
        CHECK(three.V1[i] == doctest::Approx(one.V1[i]).epsilon(1e-9));
    }
}
