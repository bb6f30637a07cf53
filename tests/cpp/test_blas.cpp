#include <doctest/doctest.h>

#include <cmath>
#include <vector>

#include "base/blas.hpp"
#include "base/types.hpp"

using namespace overparam;

namespace {

// Columns of a matrix within one of leading dimension `rows`, whose other entries must not change.
struct Block {
    int rows, columns;
    std::vector<double> data;

    Block(int m, int n, int spare, double phase)
        : rows(m + spare), columns(n), data(static_cast<std::size_t>(rows) * n) {
        for (std::size_t i = 0; i < data.size(); ++i)
            data[i] = std::sin(1.7 * static_cast<double>(i) + phase);
    }
    double& operator()(int i, int j) { return data[static_cast<std::size_t>(j) * rows + i]; }
    double operator()(int i, int j) const { return data[static_cast<std::size_t>(j) * rows + i]; }
    double turned(bool turn, int i, int j) const { return turn ? (*this)(j, i) : (*this)(i, j); }
};

// A lower triangle that is far from singular, with garbage above it.
Block triangle(int n, int spare) {
    Block l(n, n, spare, 0.3);
    for (int i = 0; i < n; ++i) l(i, i) += 3.0;
    return l;
}

double lower(const Block& l, int i, int j) { return i < j ? 0.0 : l(i, j); }

bool close(double a, double b) { return std::abs(a - b) < 1e-12 * (1.0 + std::abs(b)); }

}  // namespace

TEST_CASE("products of blocks are those of their entries, and leave the rest alone") {
    const int m = 7, n = 5, k = 11;
    for (bool turn_a : {false, true}) {
        for (bool turn_b : {false, true}) {
            for (double beta : {0.0, -0.5}) {
                const Block a(turn_a ? k : m, turn_a ? m : k, 3, 0.1);
                const Block b(turn_b ? n : k, turn_b ? k : n, 2, 0.2), before(m, n, 4, 0.3);
                Block c = before;
                if (beta == 0.0) c(2, 3) = NAN;  // what is overwritten need not be a number
                blas::gemm(turn_a, turn_b, m, n, k, 1.5, a.data.data(), a.rows, b.data.data(),
                           b.rows, beta, c.data.data(), c.rows);
                for (int j = 0; j < n; ++j) {
                    for (int i = 0; i < c.rows; ++i) {
                        double expected = before(i, j);
                        if (i < m) {
                            expected *= beta;
                            for (int l = 0; l < k; ++l)
                                expected += 1.5 * a.turned(turn_a, i, l) * b.turned(turn_b, l, j);
                        }
                        CHECK(close(c(i, j), expected));
                    }
                }
            }
        }
    }
}

TEST_CASE("contiguous products are those of blocks") {
    const int m = 3, n = 9, k = 5;
    const Block a(m, k, 0, 0.1), b(k, n, 0, 0.2), at(k, m, 0, 0.4), bt(n, k, 0, 0.5);
    Block one(m, n, 0, 0.3), two = one;
    const auto same = [&] {
        for (std::size_t i = 0; i < one.data.size(); ++i) CHECK(close(one.data[i], two.data[i]));
    };
    blas::gemm(m, n, k, 2.0, a.data.data(), b.data.data(), 0.5, one.data.data());
    blas::gemm(false, false, m, n, k, 2.0, a.data.data(), m, b.data.data(), k, 0.5, two.data.data(),
               m);
    same();
    blas::gemm_tn(m, n, k, 2.0, at.data.data(), b.data.data(), 0.5, one.data.data());
    blas::gemm(true, false, m, n, k, 2.0, at.data.data(), k, b.data.data(), k, 0.5, two.data.data(),
               m);
    same();
    blas::gemm_nt(m, n, k, 2.0, a.data.data(), bt.data.data(), 0.5, one.data.data());
    blas::gemm(false, true, m, n, k, 2.0, a.data.data(), m, bt.data.data(), n, 0.5, two.data.data(),
               m);
    same();
}

TEST_CASE("syrk writes the lower triangle alone") {
    const int n = 6, k = 9;
    for (bool turn : {false, true}) {
        for (double beta : {0.0, 2.0}) {
            const Block a(turn ? k : n, turn ? n : k, 1, 0.1), before(n, n, 2, 0.2);
            Block c = before;
            blas::syrk(turn, n, k, -0.7, a.data.data(), a.rows, beta, c.data.data(), c.rows);
            for (int j = 0; j < n; ++j) {
                for (int i = 0; i < c.rows; ++i) {
                    double expected = before(i, j);
                    if (i >= j && i < n) {
                        expected *= beta;
                        for (int l = 0; l < k; ++l)
                            expected -= 0.7 * a.turned(turn, i, l) * a.turned(turn, j, l);
                    }
                    CHECK(close(c(i, j), expected));
                }
            }
        }
    }
}

TEST_CASE("potrf factors the lower triangle, and refuses an indefinite matrix") {
    const int n = 9;
    const Block l = triangle(n, 0);
    Block a(n, n, 2, 0.6);
    const Block before = a;
    for (int j = 0; j < n; ++j) {
        for (int i = j; i < n; ++i) {
            a(i, j) = 0.0;
            for (int q = 0; q <= j; ++q) a(i, j) += l(i, q) * l(j, q);
        }
    }
    Block indefinite = a;
    CHECK(blas::potrf(n, a.data.data(), a.rows));
    for (int j = 0; j < n; ++j) {
        for (int i = 0; i < a.rows; ++i)
            CHECK(close(a(i, j), i >= j && i < n ? l(i, j) : before(i, j)));
    }
    indefinite(n - 1, n - 1) = -1.0;
    CHECK_FALSE(blas::potrf(n, indefinite.data.data(), indefinite.rows));
}

TEST_CASE("triangular systems are solved on both sides") {
    const int m = 7, n = 5;
    for (bool turn : {false, true}) {
        const Block l = triangle(m, 3), before(m, n, 2, 0.8);
        Block x = before;
        blas::solve_left(turn, m, n, l.data.data(), l.rows, x.data.data(), x.rows);
        for (int j = 0; j < n; ++j) {
            for (int i = 0; i < x.rows; ++i) {
                double product = i < m ? 0.0 : x(i, j);
                for (int q = 0; i < m && q < m; ++q)
                    product += (turn ? lower(l, q, i) : lower(l, i, q)) * x(q, j);
                CHECK(close(product, before(i, j)));
            }
        }
    }
    const Block l = triangle(n, 1), before(m, n, 2, 0.9);
    Block x = before;
    blas::solve_right(m, n, l.data.data(), l.rows, x.data.data(), x.rows);
    for (int j = 0; j < n; ++j) {
        for (int i = 0; i < x.rows; ++i) {
            double product = i < m ? 0.0 : x(i, j);
            for (int q = 0; i < m && q <= j; ++q) product += x(i, q) * l(j, q);
            CHECK(close(product, before(i, j)));
        }
    }
}
