#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <memory>
#include <vector>

#include "networks/quadratic.hpp"
#include "networks/sensing.hpp"

using namespace overparam;

namespace {

std::vector<double> wave(Index count, double frequency, double scale) {
    std::vector<double> out(count);
    for (Index i = 0; i < count; ++i) {
        out[i] = scale * std::cos(frequency * static_cast<double>(i * i % 977));
    }
    return out;
}

std::vector<double> outer(const std::vector<double>& W, Index d, Index m) {
    std::vector<double> S(d * d, 0.0);
    for (Index i = 0; i < d; ++i) {
        for (Index j = 0; j < d; ++j) {
            for (Index k = 0; k < m; ++k) S[i * d + j] += W[i * m + k] * W[j * m + k];
        }
    }
    return S;
}

// Matrices X (n, d, d) with labels: loss and gradient, entry by entry.
struct Plain {
    Index n, d, m;
    std::vector<double> X, y;

    double loss_gradient(const std::vector<double>& W, std::vector<double>& gradient) const {
        const std::vector<double> S = outer(W, d, m);
        std::vector<double> G(d * d, 0.0);
        double loss = 0.0;
        for (Index mu = 0; mu < n; ++mu) {
            const double* x = X.data() + mu * d * d;
            double r = -y[mu];
            for (Index i = 0; i < d * d; ++i) r += x[i] * S[i];
            loss += r * r;
            for (Index i = 0; i < d * d; ++i) G[i] += r * x[i] / static_cast<double>(n);
        }
        gradient.assign(d * m, 0.0);
        for (Index i = 0; i < d; ++i) {
            for (Index j = 0; j < d; ++j) {
                for (Index k = 0; k < m; ++k) gradient[i * m + k] += G[i * d + j] * W[j * m + k];
            }
        }
        return loss / static_cast<double>(n);
    }
};

Plain drawn(const GoeSource& source, Index n, Index m, const std::vector<double>& S_star,
            const std::vector<double>& noise) {
    const Index d = source.d;
    Plain plain{n, d, m, std::vector<double>(n * d * d), noise};
    std::vector<double> work(source.stride());
    std::vector<float> packed(source.stride());
    for (Index mu = 0; mu < n; ++mu) {
        source.draw(mu, work.data(), packed.data());
        double* x = plain.X.data() + mu * d * d;
        for (Index i = 0, at = 0; i < d; ++i) {
            for (Index j = i; j < d; ++j, ++at) x[i * d + j] = x[j * d + i] = packed[at];
        }
        for (Index i = 0; i < d * d; ++i) plain.y[mu] += x[i] * S_star[i];
    }
    return plain;
}

void check_agreement(Sensing& sensing, const Plain& plain, const std::vector<double>& W) {
    std::vector<double> gradient(plain.d * plain.m, 1e300), expected;
    const double loss = sensing.loss_gradient(W.data(), plain.m, 1, gradient.data());
    CHECK(loss == doctest::Approx(plain.loss_gradient(W, expected)).epsilon(1e-11));
    double size = 0.0, error = 0.0;
    for (std::size_t i = 0; i < expected.size(); ++i) {
        size = std::max(size, std::abs(expected[i]));
        error = std::max(error, std::abs(gradient[i] - expected[i]));
    }
    CHECK(error <= 1e-12 * size);
    for (int threads : {2, 5}) {
        std::vector<double> shared(gradient.size());
        CHECK(sensing.loss_gradient(W.data(), plain.m, threads, shared.data()) == loss);
        CHECK(shared == gradient);
    }
}

}  // namespace

TEST_CASE("a centred quadratic network measures by x x^T - c I") {
    for (Index n : {1, 255, 513}) {
        for (Index d : {1, 6}) {
            const Index m = 4;
            const double c = 0.7;
            const std::vector<double> x = wave(n * d, 1.3, 1.0), y = wave(n, 0.9, 2.0);
            Plain plain{n, d, m, std::vector<double>(n * d * d), y};
            for (Index mu = 0; mu < n; ++mu) {
                for (Index i = 0; i < d; ++i) {
                    for (Index j = 0; j < d; ++j) {
                        plain.X[(mu * d + i) * d + j] =
                            x[mu * d + i] * x[mu * d + j] - (i == j ? c : 0.0);
                    }
                }
            }
            QuadraticSamples samples(x.data(), y.data(), n, d, c);
            check_agreement(samples, plain, wave(d * m, 0.7, 0.5));
        }
    }
}

TEST_CASE("GOE samples, one by one and through their Gram matrix, around all block sizes") {
    // Triangles of 1, 15, 253, 276 entries: below and above a panel.
    for (Index d : {1, 5, 22, 23}) {
        for (Index n : {1, 3, 33, 300}) {
            const Index m = 3;
            const GoeSource source{d, 11, 2};
            const std::vector<double> S_star = outer(wave(d * 2, 0.4, 0.6), d, 2);
            const std::vector<double> noise = wave(n, 2.1, 0.3), W = wave(d * m, 0.7, 0.5);
            const Plain plain = drawn(source, n, m, S_star, noise);
            GoeSamples samples(source, n, S_star.data(), noise.data(), 1);
            for (Index mu = 0; mu < n; ++mu) {
                CHECK(samples.labels()[mu] == doctest::Approx(plain.y[mu]).epsilon(1e-12));
            }
            check_agreement(samples, plain, W);
            GoeGram gram(source, n, S_star.data(), noise.data(), 1);
            check_agreement(gram, plain, W);
            GoeGram shared(source, n, S_star.data(), noise.data(), 3);
            std::vector<double> one(d * m), two(d * m);
            CHECK(gram.loss_gradient(W.data(), m, 1, one.data()) ==
                  shared.loss_gradient(W.data(), m, 1, two.data()));
            CHECK(one == two);
        }
    }
}

TEST_CASE("the loss through the Gram matrix does not cancel near the teacher") {
    const Index d = 6, m = 2, n = 50;
    const GoeSource source{d, 5, 0};
    std::vector<double> W = wave(d * m, 0.7, 0.8);
    const std::vector<double> S_star = outer(W, d, m), noise(n, 0.0);
    W[3] += 1e-7;
    GoeSamples samples(source, n, S_star.data(), noise.data(), 1);
    GoeGram gram(source, n, S_star.data(), noise.data(), 1);
    std::vector<double> gradient(d * m);
    const double loss = gram.loss_gradient(W.data(), m, 1, gradient.data());
    CHECK(loss > 0.0);
    CHECK(loss ==
          doctest::Approx(samples.loss_gradient(W.data(), m, 1, gradient.data())).epsilon(1e-6));
}
