#include <doctest/doctest.h>

#include <Eigen/Dense>
#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "models/giant_step_simulate.hpp"

using namespace overparam;
using namespace overparam::giant_step;

namespace {

using Eigen::MatrixXd;
using Eigen::VectorXd;
using Rows = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

Experiment small(Index samples) {
    Experiment e;
    e.dim = 6, e.width = 5, e.samples = samples, e.first_samples = 8, e.test_samples = 7;
    e.group = {3, 2}, e.readout = {1.0, -0.5};
    e.lr = 1.5, e.ridge = 0.2, e.noise_var = 0.3;
    e.target.kind = Nonlinearity::SIN;
    e.seed = 5;
    return e;
}

struct Data {
    Rows x;
    VectorXd y, clean;
};

Data data(const Simulation& s, int stage, Index count) {
    Rows x(count, s.experiment().dim);
    VectorXd noise(count);
    s.data(0, stage, x.data(), noise.data());
    const VectorXd clean = x.col(0).array().sin();
    return {x, clean + noise, clean};
}

// Risk, train risk, alignment and norm of the gradient of replica 0, as plainly as possible.
std::vector<double> plain(const Simulation& s) {
    const Experiment& e = s.experiment();
    Rows W(e.width, e.dim);
    s.first_layer(0, W.data());
    for (Index i = 0; i < e.width; ++i) CHECK(W.row(i).norm() == doctest::Approx(1.0));
    VectorXd A(e.width);
    A << 1.0, 1.0, 1.0, -0.5, -0.5;
    const double p = static_cast<double>(e.width), n0 = static_cast<double>(e.first_samples);
    const Data first = data(s, 0, e.first_samples), second = data(s, 1, e.samples),
               test = data(s, 2, e.test_samples);
    const MatrixXd output = (first.x * W.transpose()).array().tanh();
    const MatrixXd slope = 1.0 - output.array().square();
    const VectorXd error = first.y - output * A / p, gradient = first.x.transpose() * error / n0;
    W += e.lr / n0 * A.asDiagonal() * slope.transpose() * error.asDiagonal() * first.x;
    const MatrixXd phi = (second.x * W.transpose()).array().tanh() / std::sqrt(p);
    const MatrixXd gram = phi.transpose() * phi + e.ridge * MatrixXd::Identity(e.width, e.width);
    const VectorXd a = gram.ldlt().solve(phi.transpose() * second.y);
    const VectorXd found = MatrixXd((test.x * W.transpose()).array().tanh()) * a / std::sqrt(p);
    return {(test.clean - found).squaredNorm() / static_cast<double>(e.test_samples),
            (second.y - phi * a).squaredNorm() / static_cast<double>(e.samples),
            gradient[0] / gradient.norm(), gradient.norm()};
}

}  // namespace

TEST_CASE(
    "activations and their slopes are those of the library, also in the last part of a pack") {
    const std::vector<std::pair<Nonlinearity, double (*)(double)>> functions = {
        {Nonlinearity::TANH, [](double x) { return std::tanh(x); }},
        {Nonlinearity::RELU, [](double x) { return x > 0.0 ? x : 0.0; }},
        {Nonlinearity::ERF, [](double x) { return std::erf(x / std::sqrt(2.0)); }},
        {Nonlinearity::SIN, [](double x) { return std::sin(x); }},
        {Nonlinearity::SOFTPLUS, [](double x) { return std::log1p(std::exp(x)); }},
        {Nonlinearity::LINEAR, [](double x) { return x; }},
        {Nonlinearity::SINLIN, [](double x) { return std::sin(2.0 * x) + x; }},
        {Nonlinearity::SIN2, [](double x) { return std::sin(2.0 * x); }},
        {Nonlinearity::HE3, [](double x) { return x + (x * x * x - 3.0 * x) / std::sqrt(6.0); }},
        {Nonlinearity::QUAD1, [](double x) { return x + 0.5 * (x * x - 1.0); }}};
    for (const auto& [kind, f] : functions) {
        Scalar s;
        s.kind = kind;
        std::vector<double> x;
        for (int i = 0; i < 1003; ++i) x.push_back(0.021 * (i - 501) + 0.003);
        std::vector<double> value = x, slope = x;
        evaluate(s, value.data(), static_cast<Index>(x.size()));
        evaluate_slope(s, slope.data(), static_cast<Index>(x.size()));
        for (std::size_t i = 0; i < x.size(); ++i) {
            CHECK(value[i] == doctest::Approx(f(x[i])).epsilon(1e-14));
            const double difference = (f(x[i] + 1e-4) - f(x[i] - 1e-4)) / 2e-4;
            CHECK(std::abs(slope[i] - difference) < 1e-6 * (1.0 + std::abs(difference)));
        }
    }
}

TEST_CASE("a table is exact for cubics within its range, and not a number beyond") {
    Scalar s;
    s.kind = Nonlinearity::TABLE, s.step = 0.5;
    for (int i = -4; i <= 4; ++i) {
        const double x = 0.5 * i;
        s.value.push_back(x * x * x - x);
        s.slope.push_back(3.0 * x * x - 1.0);
    }
    double value[] = {-1.93, -0.5, 0.0, 0.77, 1.999, 2.001, -7.0}, slope[7];
    std::copy(value, value + 7, slope);
    const std::vector<double> x(value, value + 7);
    evaluate(s, value, 7);
    evaluate_slope(s, slope, 7);
    for (std::size_t i = 0; i < 5; ++i) {
        CHECK(value[i] == doctest::Approx(x[i] * x[i] * x[i] - x[i]).epsilon(1e-13));
        CHECK(slope[i] == doctest::Approx(3.0 * x[i] * x[i] - 1.0).epsilon(1e-13));
    }
    for (int i : {5, 6}) CHECK((std::isnan(value[i]) && std::isnan(slope[i])));
}

TEST_CASE("a small simulation is the plain computation, with fewer and with more samples") {
    for (Index samples : {4, 9}) {
        Simulation simulation(small(samples));
        std::vector<double> measures(Simulation::MEASURES);
        simulation.advance(0, simulation.units(), measures.data(), 1);
        const std::vector<double> expected = plain(simulation);
        for (auto [i, j] : {std::pair{0, 0}, {1, 1}, {3, 2}, {4, 3}}) {
            CHECK(measures[static_cast<std::size_t>(i)] ==
                  doctest::Approx(expected[static_cast<std::size_t>(j)]).epsilon(1e-11));
        }
    }
}

TEST_CASE("slices and threads do not change a bit of a simulation") {
    const Index replicas = 3;
    std::vector<double> whole(replicas * Simulation::MEASURES), sliced = whole;
    Simulation one(small(9)), two(small(9));
    const Index units = replicas * one.units();
    one.advance(0, units, whole.data(), 2);
    for (Index u = 0; u < units; ++u) two.advance(u, 1, sliced.data(), 1);
    CHECK(whole == sliced);
}

TEST_CASE("a first layer that is not finite fails") {
    Experiment e = small(9);
    e.lr = 1e308, e.readout = {1e10, 1e10};
    Simulation simulation(e);
    std::vector<double> measures(Simulation::MEASURES);
    simulation.advance(0, simulation.units(), measures.data(), 1);
    CHECK(std::isnan(measures[0]));
    CHECK(std::isnan(measures[1]));
}
