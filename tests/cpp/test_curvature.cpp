#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <vector>

#include "base/rng.hpp"
#include "networks/curvature.hpp"

using namespace overparam;

namespace {

std::vector<double> waves(Index count, double rate) {
    std::vector<double> v(count);
    for (Index i = 0; i < count; ++i) v[i] = std::cos(rate * static_cast<double>(i * i % 1013));
    return v;
}

struct Setting {
    Index n, N, p;
    double offset = 0.3;
    std::vector<double> X, y, W, a;

    Setting(Index samples, Index dim, Index width)
        : n(samples),
          N(dim),
          p(width),
          X(waves(samples * dim, 1.3)),
          y(waves(samples, 0.9)),
          W(waves(width * dim, 0.7)),
          a(waves(width, 2.1)) {}

    QuadraticCurvature curvature() const {
        SampleSource source;
        source.n = n;
        source.N = N;
        source.X = X.data();
        source.y = y.data();
        return {source, W.data(), a, offset};
    }

    // The same product from the matrix of each sample: the slope of the error times itself, and the
    // error times its second derivative.
    std::vector<double> product(const std::vector<double>& V, Index b) const {
        std::vector<double> out(b * p * N, 0.0), fields(p), slope(p * N);
        for (Index s = 0; s < n; ++s) {
            const double* x = X.data() + s * N;
            double error = y[s] + offset;
            for (Index k = 0; k < p; ++k) {
                fields[k] = 0.0;
                for (Index i = 0; i < N; ++i) fields[k] += W[k * N + i] * x[i];
                fields[k] /= std::sqrt(static_cast<double>(N));
                error -= a[k] * fields[k] * fields[k];
            }
            for (Index k = 0; k < p; ++k) {
                for (Index i = 0; i < N; ++i) slope[k * N + i] = -2.0 * a[k] * fields[k] * x[i];
            }
            for (Index v = 0; v < b; ++v) {
                const double* direction = V.data() + v * p * N;
                double along = 0.0;
                for (Index j = 0; j < p * N; ++j) along += slope[j] * direction[j];
                for (Index k = 0; k < p; ++k) {
                    double seen = 0.0;
                    for (Index i = 0; i < N; ++i) seen += x[i] * direction[k * N + i];
                    for (Index i = 0; i < N; ++i) {
                        out[(v * p + k) * N + i] +=
                            along * slope[k * N + i] - 2.0 * error * a[k] * seen * x[i];
                    }
                }
            }
        }
        for (double& h : out) h /= static_cast<double>(n);
        return out;
    }
};

double distance(const std::vector<double>& x, const std::vector<double>& y) {
    double size = 1e-300, error = 0.0;
    for (std::size_t i = 0; i < y.size(); ++i) {
        size = std::max(size, std::abs(y[i]));
        error = std::max(error, std::abs(x[i] - y[i]));
    }
    return error / size;
}

}  // namespace

TEST_CASE("the product is that with the matrix of the samples, around every tile boundary") {
    for (Index n : {1, 2, 7, 255, 256, 257, 511, 513, 1025, 4097}) {
        for (Index N : {1, 3, 16, 17}) {
            for (Index p : {1, 2, 5}) {
                const Setting given(n, N, p);
                const QuadraticCurvature curvature = given.curvature();
                for (Index b : {1, 3}) {
                    const std::vector<double> V = waves(b * p * N, 0.3);
                    std::vector<double> out(V.size(), 1e300);
                    curvature.apply(V.data(), b, 1, out.data());
                    CHECK(distance(out, given.product(V, b)) < 1e-12);
                }
            }
        }
    }
}

TEST_CASE("threads change no bit of the product, and a block is its vectors") {
    for (Index n : {5, 300, 2049, 9001}) {
        const Setting given(n, 7, 3);
        const QuadraticCurvature curvature = given.curvature();
        const Index b = 4, size = 21;
        const std::vector<double> V = waves(b * size, 0.3);
        std::vector<double> alone(V.size()), shared(V.size()), single(size);
        curvature.apply(V.data(), b, 1, alone.data());
        for (int threads : {2, 3, 8}) {
            curvature.apply(V.data(), b, threads, shared.data());
            CHECK(shared == alone);
        }
        for (Index v = 0; v < b; ++v) {
            curvature.apply(V.data() + v * size, 1, 2, single.data());
            const std::vector<double> row(alone.begin() + v * size, alone.begin() + (v + 1) * size);
            CHECK(distance(single, row) < 1e-13);
        }
    }
}

TEST_CASE("samples that are drawn are those of the streams, with the teacher's labels") {
    const std::uint64_t seed = 77;
    const Index p = 2, ps = 3, b = 2;
    const std::vector<double> a_star = {0.4, -0.7, 1.1};
    for (double noise : {0.0, 0.6}) {
        for (Index N : {1, 15, 16, 17, 40}) {
            for (Index n : {1, 256, 700}) {
                Setting given(n, N, p);
                const std::vector<double> W_star = waves(ps * N, 1.9);
                const rng::Key data = rng::stream_key(seed, rng::Purpose::DATA);
                const rng::Key labels = rng::stream_key(seed, rng::Purpose::LABEL_NOISE);
                const Index packs = (N + 2 * LANES - 1) / (2 * LANES);
                std::vector<double> row(packs * 2 * LANES), normals(2 * LANES);
                for (Index s = 0; s < n; ++s) {
                    const std::uint64_t step = static_cast<std::uint64_t>(s);
                    rng::fill_normals(data, step, 0, packs, row.data());
                    std::copy_n(row.begin(), N, given.X.begin() + s * N);
                    rng::fill_normals(labels, step, 0, 1, normals.data());
                    given.y[s] = noise * normals[0];
                    for (Index r = 0; r < ps; ++r) {
                        double field = 0.0;
                        for (Index i = 0; i < N; ++i) field += row[i] * W_star[r * N + i];
                        given.y[s] += a_star[r] * field * field / static_cast<double>(N);
                    }
                }
                SampleSource source;
                source.n = n;
                source.N = N;
                source.seed = seed;
                source.W_star = W_star.data();
                source.a_star = a_star;
                source.noise = noise;
                const QuadraticCurvature drawn(source, given.W.data(), given.a, given.offset);
                const std::vector<double> V = waves(b * p * N, 0.3);
                std::vector<double> out(V.size()), shared(V.size());
                drawn.apply(V.data(), b, 1, out.data());
                CHECK(distance(out, given.product(V, b)) < 1e-12);
                drawn.apply(V.data(), b, 3, shared.data());
                CHECK(shared == out);
            }
        }
    }
}
