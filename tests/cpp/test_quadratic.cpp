#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <vector>

#include "networks/quadratic.hpp"

using namespace overparam;

namespace {

struct Setting {
    Index n, d, m;
    std::vector<double> X, y, W;

    Setting(Index samples, Index dim, Index width) : n(samples), d(dim), m(width) {
        for (Index i = 0; i < n * d; ++i)
            X.push_back(std::cos(1.3 * static_cast<double>(i * i % 971)));
        for (Index i = 0; i < n; ++i) y.push_back(std::sin(static_cast<double>(i)) + 0.5);
        for (Index i = 0; i < d * m; ++i) W.push_back(0.4 * std::cos(0.7 * static_cast<double>(i)));
    }

    // The same sums, sample by sample.
    double loss_gradient(std::vector<double>& gradient) const {
        gradient.assign(d * m, 0.0);
        double loss = 0.0;
        for (Index s = 0; s < n; ++s) {
            const double* x = X.data() + s * d;
            std::vector<double> fields(m);
            double output = 0.0;
            for (Index j = 0; j < m; ++j) {
                for (Index i = 0; i < d; ++i) fields[j] += x[i] * W[i * m + j];
                output += fields[j] * fields[j];
            }
            const double r = output - y[s];
            loss += r * r;
            for (Index i = 0; i < d; ++i) {
                for (Index j = 0; j < m; ++j) gradient[i * m + j] += r * x[i] * fields[j];
            }
        }
        for (double& g : gradient) g /= static_cast<double>(n);
        return loss / static_cast<double>(n);
    }
};

}  // namespace

TEST_CASE("loss and gradient of samples are their sums, around every tile boundary") {
    for (Index n : {1, 2, 7, 127, 128, 129, 255, 256, 257, 2047, 2049, 4097}) {
        for (Index d : {1, 3, 8}) {
            for (Index m : {1, 2, 5, 11}) {
                const Setting given(n, d, m);
                QuadraticSamples samples(given.X.data(), given.y.data(), n, d);
                std::vector<double> gradient(d * m, 1e300), expected;
                const double loss = samples.loss_gradient(given.W.data(), m, 1, gradient.data());
                CHECK(loss == doctest::Approx(given.loss_gradient(expected)).epsilon(1e-12));
                double size = 1e-300, error = 0.0;
                for (Index i = 0; i < d * m; ++i) {
                    size = std::max(size, std::abs(expected[i]));
                    error = std::max(error, std::abs(gradient[i] - expected[i]));
                }
                CHECK(error <= 1e-12 * size + 1e-15);
            }
        }
    }
}

TEST_CASE("threads and cuts change no bit of the descent on samples") {
    for (Index n : {5, 129, 2049}) {
        const Setting given(n, 5, 3);
        QuadraticSamples samples(given.X.data(), given.y.data(), n, 5);
        std::vector<double> alone(15), shared(15);
        const double loss = samples.loss_gradient(given.W.data(), 3, 1, alone.data());
        std::vector<double> whole = given.W;
        const double norms = samples.descend(whole.data(), 3, 1e-3, 0.1, 12, 1);
        for (int threads : {2, 3, 8}) {
            CHECK(samples.loss_gradient(given.W.data(), 3, threads, shared.data()) == loss);
            CHECK(shared == alone);
            std::vector<double> W = given.W;
            double sum = 0.0;
            for (int slice = 0; slice < 4; ++slice) {
                sum += samples.descend(W.data(), 3, 1e-3, 0.1, 3, threads);
            }
            CHECK(W == whole);
            CHECK(sum == doctest::Approx(norms).epsilon(1e-14));
        }
    }
}

TEST_CASE("a step of the descent on samples follows the gradient") {
    const Setting given(37, 4, 3);
    QuadraticSamples samples(given.X.data(), given.y.data(), 37, 4);
    std::vector<double> gradient, W = given.W;
    given.loss_gradient(gradient);
    const double rate = 0.01, ridge = 0.3;
    double square = 0.0;
    for (double w : given.W) square += w * w;
    CHECK(samples.descend(W.data(), 3, rate, ridge, 1, 1) ==
          doctest::Approx(square).epsilon(1e-14));
    for (Index i = 0; i < 12; ++i) {
        const double expected = given.W[i] - rate * (0.5 * gradient[i] + ridge * given.W[i]);
        CHECK(W[i] == doctest::Approx(expected).epsilon(1e-13));
    }
}
