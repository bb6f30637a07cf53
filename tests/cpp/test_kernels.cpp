#include <doctest/doctest.h>

#include <cmath>
#include <initializer_list>
#include <vector>

#include "base/rng.hpp"
#include "networks/kernels.hpp"

using namespace overparam;

namespace {

// A generic covariance of four fields: L L^T with unequal variances.
constexpr double L[4][4] = {
    {0.9, 0.0, 0.0, 0.0}, {0.3, 0.8, 0.0, 0.0}, {-0.4, 0.5, 0.7, 0.0}, {0.2, -0.6, 0.1, 1.1}};

std::vector<double> covariance() {
    std::vector<double> c(16);
    for (int i = 0; i < 4; ++i) {
        for (int j = 0; j < 4; ++j) {
            for (int k = 0; k < 4; ++k) c[4 * i + j] += L[i][k] * L[j][k];
        }
    }
    return c;
}

}  // namespace

TEST_CASE("all kernels agree with sampling, repeated fields included") {
    const std::vector<double> c = covariance();
    const int blocks = 2500, steps = 100;
    const int quadruples[][4] = {{0, 1, 2, 3}, {1, 3, 0, 2}, {0, 1, 2, 2}, {0, 1, 0, 2},
                                 {0, 1, 0, 1}, {0, 0, 2, 3}, {0, 0, 0, 3}, {2, 2, 2, 2},
                                 {0, 1, 1, 1}, {3, 0, 0, 0}};
    for (Activation g : {Activation::ERF, Activation::RELU}) {
        double sums[17] = {}, squares[17] = {};
        std::vector<double> z(16 * blocks);
        for (int s = 0; s < steps; ++s) {
            rng::fill_normals(rng::stream_key(11, rng::Purpose::DATA), s, 0, blocks, z.data());
            for (std::size_t i = 0; i < z.size(); i += 4) {
                double f[4] = {}, v[4], d[4];
                for (int a = 0; a < 4; ++a) {
                    for (int k = 0; k <= a; ++k) f[a] += L[a][k] * z[i + k];
                    v[a] = activate(g, f[a]);
                    d[a] = activate_slope(g, f[a]);
                }
                double values[17];
                for (int q = 0; q < 10; ++q) {
                    const int* n = quadruples[q];
                    values[q] = d[n[0]] * d[n[1]] * v[n[2]] * v[n[3]];
                }
                values[10] = v[0] * v[3];
                values[11] = d[1] * d[2];
                values[12] = d[0] * f[1] * v[2];
                values[13] = v[3];
                values[14] = d[2] * f[1];
                values[15] = d[0] * d[1] * v[2];
                values[16] = d[0] * d[1] * v[1];
                for (int q = 0; q < 17; ++q) {
                    sums[q] += values[q];
                    squares[q] += values[q] * values[q];
                }
            }
        }
        const double n = 4.0 * blocks * steps;
        for (int q = 0; q < 17; ++q) {
            double exact;
            if (q < 10) {
                const int* f = quadruples[q];
                exact = kernel_slope_slope_value_value(g, c.data(), 4, f[0], f[1], f[2], f[3]);
            } else if (q == 10) {
                exact = kernel_value_value(g, c[0], c[3], c[15]);
            } else if (q == 11) {
                exact = kernel_slope_slope(g, c[5], c[6], c[10]);
            } else if (q == 12) {
                exact = kernel_slope_field_value(g, c[0], c[1], c[2], c[6], c[10]);
            } else if (q == 13) {
                exact = kernel_value(g, c[15]);
            } else if (q == 14) {
                exact = kernel_slope_field(g, c[10], c[6]);
            } else {
                exact = kernel_slope_slope_value(g, c.data(), 4, 0, 1, q == 15 ? 2 : 1);
            }
            const double mean = sums[q] / n;
            const double sem = std::sqrt((squares[q] / n - mean * mean) / n);
            INFO("kernel " << q << " of activation " << static_cast<int>(g));
            CHECK(std::abs(mean - exact) < 5.0 * sem);
        }
    }
}

TEST_CASE("the ReLU kernel is symmetric, continuous at repeated fields and zero for a dead unit") {
    std::vector<double> c = covariance();
    const auto k = [&](Index u, Index v, Index w, Index z) {
        return kernel_slope_slope_value_value(Activation::RELU, c.data(), 4, u, v, w, z);
    };
    CHECK(k(0, 1, 2, 3) == doctest::Approx(k(1, 0, 2, 3)).epsilon(1e-9));
    CHECK(k(0, 1, 2, 3) == doctest::Approx(k(0, 1, 3, 2)).epsilon(1e-9));
    const double repeated = k(0, 1, 2, 2);
    // Field 3 becomes a copy of field 2, up to a tiny independent part.
    for (int i = 0; i < 4; ++i) c[4 * i + 3] = c[4 * 3 + i] = c[4 * i + 2];
    c[15] = c[10] * (1.0 + 1e-12);
    CHECK(k(0, 1, 2, 3) == doctest::Approx(repeated).epsilon(1e-5));
    for (int i = 0; i < 4; ++i) c[4 * i + 3] = c[4 * 3 + i] = 0.0;
    CHECK(k(0, 1, 2, 3) == 0.0);
    CHECK(k(3, 1, 2, 2) == 0.0);
}
