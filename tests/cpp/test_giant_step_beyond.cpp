// The bulk's spectral measure, and fits of labels' signs.
#include <doctest/doctest.h>

#include <cmath>
#include <complex>
#include <vector>

#include "math/gauss.hpp"
#include "models/giant_step.hpp"

using namespace overparam;
using namespace overparam::giant_step;
using doctest::Approx;

namespace {

constexpr double PI = 3.14159265358979323846;

// Labels sign(omega), of square 1, on panels.
Labels signs() {
    const Quadrature rule = gauss_legendre(12);
    Labels labels;
    for (int panel = -18; panel < 18; ++panel) {
        for (std::size_t i = 0; i < rule.nodes.size(); ++i) {
            const double omega = 0.5 * (panel + rule.nodes[i]);
            labels.omega.push_back(omega);
            labels.weight.push_back(0.5 * rule.weights[i] * std::exp(-0.5 * omega * omega) /
                                    std::sqrt(2.0 * PI));
            labels.value.push_back(panel < 0 ? -1.0 : 1.0);
        }
    }
    return labels;
}

double sum(const std::vector<Complex>& weight, const std::vector<Complex>& covariance, double b) {
    Complex total = 0.0;
    for (std::size_t j = 0; j < weight.size(); ++j) total += weight[j] / (1.0 + b * covariance[j]);
    return total.real();
}

// A student of strength r and variance c with features that vary with kappa, and the target
// sign(gamma kappa + rho omega), whose averages over omega are known.
Tables sign_tables(double r, double c, double gamma) {
    Tables t;
    double total = 0.0;
    const double ratio = gamma / std::sqrt(1.0 - gamma * gamma);
    for (int i = -170; i <= 170; ++i) {
        const double kappa = 0.05 * i;
        t.kappa.push_back(kappa);
        t.weight.push_back(std::exp(-0.5 * kappa * kappa));
        total += t.weight.back();
        t.target.push_back(std::erf(ratio * kappa / std::sqrt(2.0)));
        t.target_linear.push_back(2.0 * std::exp(-0.5 * ratio * ratio * kappa * kappa) /
                                  std::sqrt(2.0 * PI));
        t.target_second.push_back(1.0);
    }
    for (double& w : t.weight) w /= total;
    std::vector<double> values, k;
    for (int i = -2000; i <= 2000; ++i) values.push_back(std::tanh(0.02 * i + 0.3));
    for (double kappa : t.kappa) k.push_back(r * kappa);
    const Features f = lattice_features(values, -40.0, 0.02, k, std::sqrt(c));
    t.mean = f.mean;
    t.linear = f.linear;
    t.residual = f.residual;
    t.curvature = f.curvature;
    return t;
}

}  // namespace

TEST_CASE("labels of square one have the spectrum of Marchenko and Pastur") {
    for (const double samples : {0.3, 2.0, 50.0}) {
        const double spread = 1.7;
        const Modes modes = step_modes(signs(), 0.0, samples, {spread, 0.2});
        CHECK(modes.groups() == 2);
        const std::vector<Complex> covariance(modes.covariance.begin(),
                                              modes.covariance.begin() + modes.count());
        for (const double b : {0.05, 1.0, 20.0}) {
            // 1/g = z + 1/(1 + g/samples)
            const double z = (1.0 + b) / (spread * b);
            // z g^2/samples + g (z + 1 - 1/samples) - 1 = 0
            const double linear = z + 1.0 - 1.0 / samples;
            const double g =
                (std::sqrt(linear * linear + 4.0 * z / samples) - linear) * samples / (2.0 * z);
            CHECK(sum(modes.weight, covariance, b) == Approx(g / (spread * b)).epsilon(1e-11));
        }
        CHECK(sum(modes.weight, covariance, 0.0) == Approx(1.0).epsilon(1e-13));
        CHECK(sum(modes.along, covariance, 0.0) == Approx(1.0).epsilon(1e-13));
        CHECK(sum(modes.orthogonal, covariance, 0.0) == Approx(1.0).epsilon(1e-13));
        CHECK(std::abs(sum(modes.across, covariance, 0.0)) < 1e-13);
    }
}

TEST_CASE("the square loss on signs has the solution of ridge regression") {
    for (const double gamma : {0.0, 0.7, -0.9}) {
        const double c = 1.3;
        const Tables t = sign_tables(1.4, c, gamma);
        Modes modes{{1.0}, {c}, {1.0}, {0.0}, {1.0}};
        for (const double slope_variance : {1.0, 2.5}) {
            const Setting setting{1.5, 0.8, 0.05, 0.0, {1.0}, {0.0}, slope_variance, 0.0};
            const Readout ridge = solve_square(t, modes, setting);
            const SignLaw law{-1.0, {0.0}, {}, {}, {}};
            const Readout found = solve_signs(t, c, gamma, law, setting, SignLoss::SQUARE);
            CHECK(found.status == Status::SUCCESS);
            CHECK(found.train_risk == Approx(0.5 * ridge.train_risk).epsilon(1e-10));
            CHECK(found.m[0] == Approx(ridge.m[0]).epsilon(1e-9));
            CHECK(found.theta[0] == Approx(ridge.theta[0]).epsilon(1e-9));
            CHECK(found.psi[0] == Approx(ridge.psi[0]).epsilon(1e-9));
            CHECK(found.Q1[0] == Approx(ridge.Q1[0]).epsilon(1e-9));
            CHECK(found.q2[0] == Approx(ridge.q2[0]).epsilon(1e-9));
            CHECK(found.V1[0] == Approx(ridge.V1[0]).epsilon(1e-9));
            CHECK(found.V2[0] == Approx(ridge.V2[0]).epsilon(1e-9));
        }
    }
}

TEST_CASE("the logistic loss on labels that are pure noise learns nothing") {
    const Tables t = sign_tables(1.4, 1.3, 0.7);
    const Setting setting{1.5, 0.8, 0.05, 0.0, {1.0}, {0.0}, 1.0, 0.0};
    // Probability 1/2 everywhere: the rest beside a step at 0.
    SignLaw law{-1.0, {0.0}, {}, {}, {}};
    for (int i = -4000; i < 4000; ++i) {
        law.node.push_back(0.003 * (i + 0.5));
        law.rest.push_back(0.003 * (i < 0 ? 0.5 : -0.5));
    }
    const Readout found = solve_signs(t, 1.3, 0.7, law, setting, SignLoss::LOGISTIC);
    CHECK(found.status == Status::SUCCESS);
    CHECK(sign_error(t, 0.7, law, found) == Approx(0.5).epsilon(1e-5));
    CHECK(std::abs(found.psi[0]) < 1e-3);
    CHECK(found.train_risk < std::log(2.0));
}
