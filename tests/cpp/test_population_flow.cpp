#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <initializer_list>
#include <limits>
#include <memory>
#include <vector>

#include "models/population_flow.hpp"

using namespace overparam;
namespace flow = overparam::population_flow;

namespace {

constexpr Index MANY = std::numeric_limits<Index>::max() / 4;

constexpr double NO_LIMIT = std::numeric_limits<double>::infinity();

using Values = std::vector<double>;
using Maker = std::unique_ptr<Run> (*)(const flow::Model&, const double*, const flow::Numerics&,
                                       bool);

flow::Model make_model(Values mu, Index m, double kappa, double lam) {
    flow::Model model;
    model.mu = std::move(mu);
    model.m = m;
    model.kappa = kappa;
    model.lam = lam;
    return model;
}

Values make_start(Index d, Index m, double size) {
    Values W(d * m);
    for (Index i = 0; i < d * m; ++i)
        W[i] = size * std::cos(1.0 + 0.7 * static_cast<double>(i * i));
    return W;
}

flow::Numerics make_numerics(Values t, double rtol) { return {std::move(t), rtol, 1e-18, MANY}; }

// No limit of the loss is known: in segments until the end.
std::unique_ptr<Run> segments(const flow::Model& model, const double* W0,
                              const flow::Numerics& numerics, bool keep) {
    return flow::restart(model, W0, numerics, NO_LIMIT, keep);
}

void finish(Run& run) {
    REQUIRE(run.advance(MANY));
    REQUIRE(run.status() == Status::SUCCESS);
}

// In units of the largest number of `other`, or of one.
double largest_difference(const Values& one, const Values& other) {
    REQUIRE(one.size() == other.size());
    double worst = 0.0, size = 1.0;
    for (std::size_t i = 0; i < one.size(); ++i) {
        const double error = std::abs(one[i] - other[i]);
        worst = error <= worst ? worst : error;  // a NaN counts
        size = std::max(size, std::abs(other[i]));
    }
    return worst / size;
}

}  // namespace

TEST_CASE("closed solutions and the equation for W agree, with and without S") {
    const Values t = {0.0, 0.3, 2.0, 7.0};
    for (Index d : {1, 2, 5, 8}) {
        for (Index m : {1, 3, 9}) {
            for (Index r = 0; r <= d; r += 2) {
                for (double kappa : {0.0, 0.5, 4.0}) {
                    Values mu(d, 0.0);
                    // not in order, and zeros between
                    for (Index i = 0; i < r; ++i)
                        mu[(3 * i + 1) % d] = 1.0 + 0.3 * static_cast<double>(i);
                    Index rank = 0;
                    for (double x : mu) rank += x > 0.0;
                    const flow::Model model = make_model(mu, m, kappa, 0.05);
                    const Values W = make_start(d, m, 0.6);
                    for (bool keep : {false, true}) {
                        const auto values = [&](Maker maker) {
                            const auto run = maker(model, W.data(), make_numerics(t, 1e-11), keep);
                            finish(*run);
                            CHECK(run->saved() == 4);
                            CHECK(run->observed_size() == flow::FIELDS + (keep ? d * d : 0));
                            return run->values();
                        };
                        const Values reference = values(flow::weights);
                        CHECK(largest_difference(values(segments), reference) < 1e-8);
                        if (kappa == 0.0) {
                            CHECK(largest_difference(values(flow::direct), reference) < 1e-8);
                        }
                        if (rank >= 1 && rank <= m && flow::condition(model, W.data()) < 1e4) {
                            CHECK(largest_difference(values(flow::reduced), reference) < 1e-8);
                        }
                    }
                }
            }
        }
    }
}

TEST_CASE("slices of a flow change no bit") {
    const flow::Model model = make_model({1.2, 0.0, 0.7, 0.0, 0.0}, 3, 0.5, 0.1);
    const Values W = make_start(5, 3, 0.5);
    for (Maker maker : {flow::reduced, segments, flow::weights}) {
        const auto whole = maker(model, W.data(), make_numerics({0.1, 1.0, 30.0}, 1e-10), true);
        const auto sliced = maker(model, W.data(), make_numerics({0.1, 1.0, 30.0}, 1e-10), true);
        finish(*whole);
        Index slices = 0;
        while (!sliced->advance(23)) ++slices;
        CHECK(slices > 3);
        REQUIRE(sliced->values().size() == whole->values().size());
        CHECK(std::memcmp(sliced->values().data(), whole->values().data(),
                          sizeof(double) * whole->values().size()) == 0);
    }
}

TEST_CASE("no exponential overflows until a million units of time") {
    const Values t = {1.0, 1e3, 1e6}, W = make_start(4, 2, 0.5);
    for (double kappa : {0.0, 0.5}) {
        for (double lam : {0.0, 0.2, 3.0}) {
            const flow::Model model = make_model({1.5, 0.0, 0.4, 0.0}, 2, kappa, lam);
            const auto run = flow::reduced(model, W.data(), make_numerics(t, 1e-10), false);
            finish(*run);
            const double* last = run->values().data() + 2 * flow::FIELDS;
            for (int f = 0; f < flow::FIELDS; ++f) CHECK(std::isfinite(last[f]));
            // At rest S is the teacher, by the same shift less in each direction that is left.
            const Values mu = {1.5, 0.4};
            double s = 0.0, learned = 0.0;
            for (int n = 2; n >= 0; --n) {
                learned = n;
                s = (lam - kappa * (n == 2 ? 0.0 : n == 1 ? 0.4 : 1.9)) / (1.0 + kappa * n);
                if (n == 0 || mu[n - 1] > s) break;
            }
            double trace = 0.0;
            for (int i = 0; i < static_cast<int>(learned); ++i) trace += mu[i] - s;
            CHECK(last[flow::TRACE] == doctest::Approx(trace).epsilon(1e-8));
            CHECK(last[flow::SHIFT_INTEGRAL] / 1e6 == doctest::Approx(s).epsilon(1e-4));
        }
    }
}

TEST_CASE("orthonormal families are reduced flows") {
    // Two planes with one column each, and a third column outside the teacher.
    const double c1 = 0.7, c2 = 0.2, s0 = 1.3;
    const flow::Model model = make_model({1.0, 1.0, 0.0, 0.0, 0.0}, 3, 0.5, 0.1);
    Values W(15, 0.0);
    W[0] = std::sqrt(s0 * c1);
    W[4] = std::sqrt(s0 * c2);
    W[6] = std::sqrt(s0 * (1.0 - c1));
    W[10] = std::sqrt(s0 * (1.0 - c2));
    W[14] = std::sqrt(s0);
    const flow::Numerics numerics = make_numerics({0.0, 0.5, 3.0, 40.0}, 1e-12);
    const auto exact = flow::reduced(model, W.data(), numerics, false);
    const auto angles =
        flow::orthonormal({c1, c2, 0.0}, {1.0, 1.0, 1.0}, 2.0, 0.5, 0.1, s0, numerics);
    finish(*exact);
    finish(*angles);
    CHECK(largest_difference(exact->values(), angles->values()) < 1e-9);
}

TEST_CASE("replicas depend on their number alone") {
    const flow::Model model = make_model({1.0, 0.5, 0.0, 0.0, 0.0}, 3, 0.5, 0.0);
    const flow::Numerics numerics = make_numerics({0.0, 1.0, 5.0}, 1e-9);
    const Index each = 3 * flow::FIELDS;
    Values all(11 * each), some(4 * each), start(15), first(flow::FIELDS);
    flow::simulate(model, flow::Start::GAUSSIAN, 1.5, flow::Method::REDUCED, NO_LIMIT, numerics, 7,
                   0, 11, 3, all.data());
    flow::simulate(model, flow::Start::GAUSSIAN, 1.5, flow::Method::REDUCED, NO_LIMIT, numerics, 7,
                   5, 4, 1, some.data());
    CHECK(std::memcmp(all.data() + 5 * each, some.data(), sizeof(double) * some.size()) == 0);
    flow::random_start(5, 3, flow::Start::GAUSSIAN, 1.5, 7, 6, start.data());
    flow::measure(model, start.data(), first.data());
    for (int f = 0; f < flow::SHIFT_INTEGRAL; ++f) {
        CHECK(all[6 * each + f] == doctest::Approx(first[f]).epsilon(1e-12));
    }
}

TEST_CASE("the limit at equal full ranks stays at the teacher") {
    const flow::Measure one = {{1.0}, {1.0}};
    for (double kappa_d : {std::numeric_limits<double>::infinity(), 5.0}) {
        const auto run = flow::limit(one, one, kappa_d, 0.0, make_numerics({0.0, 1.0, 1e6}, 1e-10));
        finish(*run);
        for (Index i = 0; i < 3; ++i) {
            const double* fields = run->values().data() + i * run->observed_size();
            CHECK(fields[flow::LOSS] < 1e-18);
            CHECK(fields[flow::TRACE] == doctest::Approx(1.0).epsilon(1e-9));
        }
    }
}
