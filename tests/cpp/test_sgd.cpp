#include <doctest/doctest.h>

#include <cmath>
#include <initializer_list>
#include <vector>

#include "models/sgd.hpp"

using namespace overparam;

namespace {

sgd::Model make_model(Index p, Index ps) {
    sgd::Model m;
    m.p = p;
    m.ps = ps;
    m.a.assign(p, 1.0 / static_cast<double>(p));
    m.a_star.assign(ps, 1.0 / static_cast<double>(ps));
    m.P.assign(ps * ps, 0.0);
    for (Index r = 0; r < ps; ++r) m.P[r * ps + r] = 1.0;
    m.lr = 0.05 * static_cast<double>(p);
    return m;
}

struct Chain {
    std::vector<double> Lstar, norms, Bm, Qperp, a;

    Chain(const sgd::Model& m, Index replicas)
        : Lstar(m.P),
          norms(replicas * m.p, 0.5),
          Bm(replicas * m.p * m.ps, 0.02),
          Qperp(replicas * m.p * m.p),
          a(replicas * m.p) {
        for (Index r = 0; r < replicas; ++r) {
            for (Index k = 0; k < m.p; ++k) {
                Qperp[(r * m.p + k) * m.p + k] = 0.5;
                a[r * m.p + k] = m.a[k];
            }
        }
    }

    void run(const sgd::Model& m, double dim, Index step, Index steps, int threads) {
        sgd::chain_advance(m, dim, Lstar.data(), norms.data(), {Bm.data(), Qperp.data(), a.data()},
                           static_cast<Index>(a.size()) / m.p, 9, step, steps, threads);
    }
};

}  // namespace

TEST_CASE("the chain is the same for any threads, slices and number of replicas") {
    for (Activation g : {Activation::QUADRATIC, Activation::ERF, Activation::RELU}) {
        for (Index p : {1, 2, 5, 8, 9, 13}) {
            for (Index ps : {1, 3}) {
                for (Index batch : {1, 3}) {
                    for (bool spherical : {false, true}) {
                        sgd::Model m = make_model(p, ps);
                        m.activation = g;
                        m.batch = batch;
                        m.spherical = spherical;
                        m.noise_var = 0.1;
                        if (g == Activation::QUADRATIC) m.second_layer_lr = 0.01;
                        const double dim = static_cast<double>(p + ps + (batch > 1 ? p / 2 : 30));
                        Chain whole(m, 11), sliced(m, 11), first(m, 3);
                        whole.run(m, dim, 0, 20, 1);
                        for (Index s = 0; s < 20; s += 5) sliced.run(m, dim, s, 5, 4);
                        first.run(m, dim, 0, 20, 1);
                        CHECK(whole.Bm == sliced.Bm);
                        CHECK(whole.Qperp == sliced.Qperp);
                        CHECK(whole.a == sliced.a);
                        for (std::size_t i = 0; i < first.Qperp.size(); ++i) {
                            REQUIRE(std::isfinite(first.Qperp[i]));
                            REQUIRE(first.Qperp[i] == whole.Qperp[i]);
                        }
                    }
                }
            }
        }
    }
}

TEST_CASE("direct SGD is the same for any threads, slices and number of replicas") {
    for (Index p : {1, 3, 8, 11}) {
        for (Index dim : {1, 7, 16, 45}) {
            for (Index batch : {1, 4}) {
                for (bool spherical : {false, true}) {
                    sgd::Model m = make_model(p, 2);
                    m.batch = batch;
                    m.spherical = spherical;
                    m.noise_var = 0.1;
                    const Index stride = sgd::padded(dim), replicas = 3;
                    std::vector<double> teacher(2 * stride), W(replicas * p * stride),
                        norms(replicas * p), a(replicas * p, m.a[0]);
                    teacher[0] = teacher[stride + dim - 1] = std::sqrt(static_cast<double>(dim));
                    for (Index r = 0; r < replicas * p; ++r) {
                        for (Index j = 0; j < dim; ++j) {
                            W[r * stride + j] = 0.5 * std::cos(static_cast<double>(3 * r + j));
                            norms[r] += W[r * stride + j] * W[r * stride + j];
                        }
                        norms[r] /= static_cast<double>(dim);
                    }
                    std::vector<double> W2 = W, a2 = a, W3(W.begin(), W.begin() + p * stride),
                                        a3(a.begin(), a.begin() + p);
                    sgd::direct_advance(m, dim, teacher.data(), norms.data(), W.data(), a.data(),
                                        replicas, 4, 0, 12, 1);
                    for (Index s = 0; s < 12; s += 4) {
                        sgd::direct_advance(m, dim, teacher.data(), norms.data(), W2.data(),
                                            a2.data(), replicas, 4, s, 4, 3);
                    }
                    sgd::direct_advance(m, dim, teacher.data(), norms.data(), W3.data(), a3.data(),
                                        1, 4, 0, 12, 1);
                    CHECK(W == W2);
                    for (std::size_t i = 0; i < W3.size(); ++i) {
                        REQUIRE(std::isfinite(W3[i]));
                        REQUIRE(W3[i] == W[i]);
                    }
                    for (Index r = 0; r < replicas * p; ++r) {
                        double norm2 = 0.0;
                        for (Index j = 0; j < stride; ++j) {
                            if (j >= dim) REQUIRE(W[r * stride + j] == 0.0);
                            norm2 += W[r * stride + j] * W[r * stride + j];
                        }
                        if (spherical) {
                            CHECK(norm2 / static_cast<double>(dim) ==
                                  doctest::Approx(norms[r]).epsilon(1e-12));
                        }
                    }
                }
            }
        }
    }
}

TEST_CASE("the overlap equations agree for widths with and without loops of their own") {
    // Width 9 (matrix products) with a ninth unit that does not act, against width 8 (loops).
    const Index p = 8, ps = 3;
    sgd::Model small = make_model(p, ps), large = make_model(p + 1, ps);
    large.a.assign(p + 1, small.a[0]);
    large.lr = small.lr;
    std::vector<double> Q(p * p), M(p * ps), Q9((p + 1) * (p + 1)), M9((p + 1) * ps);
    for (Index k = 0; k < p; ++k) {
        for (Index l = 0; l < p; ++l) {
            Q[k * p + l] = Q9[k * (p + 1) + l] =
                k == l ? 0.6 : 0.05 * std::cos(static_cast<double>(k + l));
        }
        for (Index r = 0; r < ps; ++r)
            M[k * ps + r] = M9[k * ps + r] = 0.1 * std::sin(1.0 + 3.0 * k + r);
    }
    std::vector<double> dQ(Q.size()), dM(M.size()), da(p), dQ9(Q9.size()), dM9(M9.size()),
        da9(p + 1);
    sgd::drift(small, true, Q.data(), M.data(), small.a.data(), dQ.data(), dM.data(), da.data());
    sgd::drift(large, true, Q9.data(), M9.data(), large.a.data(), dQ9.data(), dM9.data(),
               da9.data());
    for (Index k = 0; k < p; ++k) {
        for (Index l = 0; l < p; ++l) {
            CHECK(dQ[k * p + l] == doctest::Approx(dQ9[k * (p + 1) + l]).epsilon(1e-12));
        }
        for (Index r = 0; r < ps; ++r) {
            CHECK(dM[k * ps + r] == doctest::Approx(dM9[k * ps + r]).epsilon(1e-12));
        }
    }
    CHECK(sgd::risk(small, Q.data(), M.data(), small.a.data()) ==
          doctest::Approx(sgd::risk(large, Q9.data(), M9.data(), large.a.data())).epsilon(1e-13));
}
