#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <utility>
#include <vector>

#include "math/roots.hpp"
#include "models/empirical_flow.hpp"

using namespace overparam;
using namespace overparam::empirical_flow;

namespace {

// The law of Marchenko and Pastur by its own formulas, and as an interval with an atom, which is
// solved in other variables and along other paths.
TeacherLaw rational(double ratio, double scale) {
    TeacherLaw law{};
    law.mean = scale;
    law.second = scale * scale * (1.0 + 1.0 / ratio);
    law.ratio = ratio;
    return law;
}

TeacherLaw as_interval(double ratio, double scale) {
    TeacherLaw law = rational(ratio, scale);
    law.ratio = 0.0;
    const double mass = std::min(ratio, 1.0), aspect = std::min(ratio, 1.0 / ratio);
    if (mass < 1.0) {
        law.positions = {0.0};
        law.weights = {1.0 - mass};
    }
    const double root = std::sqrt(aspect), unit = scale / mass;
    law.interval = {(1.0 - root) * (1.0 - root),
                    (1.0 + root) * (1.0 + root),
                    unit,
                    2.0 * mass / unit,
                    1.0,
                    1.0 - aspect,
                    mass};
    return law;
}

TeacherLaw atoms(const std::vector<double>& positions, const std::vector<double>& weights) {
    TeacherLaw law{};
    law.positions = positions;
    law.weights = weights;
    for (std::size_t i = 0; i < weights.size(); ++i) {
        law.mean += weights[i] * positions[i];
        law.second += weights[i] * positions[i] * positions[i];
    }
    return law;
}

void require_same(const Found& one, const Found& other, double tolerance) {
    REQUIRE(one.status == Status::SUCCESS);
    REQUIRE(other.status == Status::SUCCESS);
    REQUIRE(one.fixed.size() == other.fixed.size());
    for (std::size_t i = 0; i < one.fixed.size(); ++i) {
        const double* a = &one.fixed[i].alpha;
        const double* b = &other.fixed[i].alpha;
        for (int field = 0; field <= 10; ++field) {
            CAPTURE(field);
            REQUIRE(a[field] == doctest::Approx(b[field]).epsilon(tolerance));
        }
    }
}

}  // namespace

TEST_CASE("roots and minima of one variable") {
    const auto cubic = [](double x) { return x * x * x - 2.0; };
    CHECK(root(cubic, 0.0, -2.0, 4.0, 62.0, 1e-15) ==
          doctest::Approx(std::cbrt(2.0)).epsilon(1e-15));
    CHECK(root(cubic, 4.0, 62.0, 0.0, -2.0, 1e-15) ==
          doctest::Approx(std::cbrt(2.0)).epsilon(1e-15));
    // Newton's steps alone would not converge, and a start on the root stays there.
    const auto bent = [](double x) {
        return std::pair(std::atan(x - 3.0), 1.0 / (1.0 + (x - 3.0) * (x - 3.0)));
    };
    for (double start : {-90.0, 0.0, 3.0, 95.0})
        CHECK(newton(bent, -100.0, 100.0, start, 1e-15) == doctest::Approx(3.0).epsilon(1e-15));
    const auto steep = [](double x) { return std::pair(std::log(x / 1e-9), 1.0 / x); };
    CHECK(newton(steep, 1e-300, 1.0, 0.5, 1e-15) == doctest::Approx(1e-9).epsilon(1e-14));
    const auto bowl = [](double x) { return (x - 0.3) * (x - 0.3) + 2.0; };
    const auto [at, value] = minimum(bowl, -1.0, 0.5, 2.0, bowl(0.5), 1e-7);
    CHECK(at == doctest::Approx(0.3).epsilon(1e-6));
    CHECK(value == doctest::Approx(2.0).epsilon(1e-13));
}

TEST_CASE("long times: two ways to the integrals over the spectrum agree") {
    for (const Setting& set : std::initializer_list<Setting>{{0.3, 1.0, 0.1, 0.05},
                                                             {0.3, 0.4, 0.1, 0.05},
                                                             {0.2, 0.2, 0.0, 1e-4},
                                                             {0.2, 0.2, 0.0, 0.0},
                                                             {0.25, 1.0, 0.25, 0.0},
                                                             {0.6, 0.5, 0.0, 1e-6},
                                                             {0.05, 0.1, 30.0, 0.0},
                                                             {50.0, 0.5, 1e-6, 2.0}}) {
        for (double ratio : {0.05, 0.2, 0.5, 1.0, 3.0}) {
            CAPTURE(set.alpha);
            CAPTURE(set.kappa);
            CAPTURE(ratio);
            require_same(long_time(rational(ratio, 1.0), set),
                         long_time(as_interval(ratio, 1.0), set), 1e-8);
        }
    }
}

TEST_CASE("long times: units scale, and a zero of the teacher's law keeps its place") {
    const Setting set{0.4, 0.45, 0.3, 0.08}, scaled{0.4, 0.45, 0.3 * 49.0, 0.08 * 7.0};
    const Found one = long_time(rational(0.3, 1.0), set),
                seven = long_time(rational(0.3, 7.0), scaled);
    REQUIRE(one.fixed.size() == 1);
    CHECK(seven.fixed[0].risk == doctest::Approx(49.0 * one.fixed[0].risk).epsilon(1e-12));
    CHECK(seven.fixed[0].threshold == doctest::Approx(7.0 * one.fixed[0].threshold).epsilon(1e-12));
    CHECK(seven.fixed[0].c == doctest::Approx(one.fixed[0].c).epsilon(1e-12));
    // One atom at a: a shifted semicircle, whose integrals are elementary. Here all of it is kept,
    // D = 1/2, and R = 2 (tau^2 + sigma^2).
    const double a = 5.0;
    const Found single = long_time(atoms({a}, {1.0}), {2.0, 1.0, 0.1, 0.1});
    REQUIRE(single.fixed.size() == 1);
    const Fixed& f = single.fixed[0];
    CHECK(f.c == doctest::Approx(0.75).epsilon(1e-13));
    CHECK(f.threshold == doctest::Approx(0.1 / 0.75).epsilon(1e-13));
    const double sigma2 = (2.0 * f.threshold * f.threshold + 0.1) / (8.0 - 2.0);
    CHECK(f.sigma2 == doctest::Approx(sigma2).epsilon(1e-13));
    CHECK(f.trace == doctest::Approx(a - f.threshold).epsilon(1e-13));
    CHECK(f.overlap == doctest::Approx(a * (a - f.threshold)).epsilon(1e-13));
}

TEST_CASE("long times: the closed form of the posterior mode") {
    for (double ratio : {0.02, 0.1, 0.2, 0.4}) {
        const double noise = 0.05, alpha = 3.0 * (ratio - 0.5 * ratio * ratio);
        const Found found =
            long_time(rational(ratio, 1.0), {alpha, ratio, noise, noise * ratio / (4.0 * alpha)});
        REQUIRE(found.fixed.size() == 1);
        CHECK(found.fixed[0].c == doctest::Approx(2.0 / 3.0).epsilon(1e-12));
        CHECK(found.fixed[0].risk == doctest::Approx(0.5 * noise).epsilon(1e-12));
    }
}

TEST_CASE("curve: its solutions are those of long_time at their alpha") {
    const TeacherLaw teacher = rational(0.25, 1.0);
    const Setting set{0.0, 0.25, 0.0, 1e-3};
    const Found island = curve(teacher, set, {0.5, 2.0, 10.0});
    REQUIRE(island.fixed.size() == 5);
    for (const Fixed& point : island.fixed) {
        const Found at = long_time(teacher, {point.alpha, 0.25, 0.0, 1e-3});
        double nearest = 1.0;
        bool stable = false;
        for (const Fixed& f : at.fixed) {
            const double off = std::abs(f.sigma2 / point.sigma2 - 1.0);
            if (off < nearest) {
                nearest = off;
                stable = f.stable != 0.0;
            }
        }
        CHECK(nearest < 1e-11);
        CHECK(stable == (point.stable != 0.0));
    }
}

TEST_CASE("thresholds: known values and limits") {
    CHECK(recovery_threshold(0.2, 0.2) == doctest::Approx(0.18).epsilon(1e-14));
    CHECK(recovery_threshold(1e-4, 1e-4) == doctest::Approx(1e-4 - 0.5e-8).epsilon(1e-13));
    CHECK(std::isinf(recovery_threshold(0.1, 0.2)));
    CHECK(recovery_threshold(1.0, 1.5) == 0.5);
    for (double ratio : {0.01, 0.3, 0.9}) {
        const double saturation = saturation_width(ratio), open = 1.0 - ratio;
        CHECK(recovery_threshold(saturation * (1.0 - 1e-9), ratio) ==
              doctest::Approx(recovery_threshold(1.0, ratio)).epsilon(1e-12));
        CHECK(interpolation_threshold(1.0, ratio, 0.0) ==
              doctest::Approx(0.5 - 0.25 * open * open).epsilon(1e-14));
        CHECK(interpolation_threshold(1.0, ratio, 1e10) == doctest::Approx(0.25).epsilon(1e-6));
    }
}

TEST_CASE("no student is better than the Bayes-optimal estimator, whatever its ridge") {
    for (double alpha : {0.1, 0.3, 1.0}) {
        for (double noise : {0.01, 1.0}) {
            const TeacherLaw teacher = rational(0.3, 1.0);
            const double bayes = bayes_risk(alpha, 0.3, 1.0, noise);
            const double best = optimal_ridge(teacher, {alpha, 1.0, noise, 0.0});
            const double risk = long_time(teacher, {alpha, 1.0, noise, best}).fixed[0].risk;
            CHECK(bayes < risk);
            for (double off : {0.9, 1.1})
                CHECK(long_time(teacher, {alpha, 1.0, noise, off * best}).fixed[0].risk > risk);
        }
    }
}
