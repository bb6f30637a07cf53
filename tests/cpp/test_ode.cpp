#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <initializer_list>
#include <limits>
#include <memory>
#include <vector>

#include "math/ode.hpp"

using namespace overparam;

namespace {

constexpr Index MANY = Index{1} << 40;

struct Function : OdeSystem {
    Index d;
    void (*f)(const double*, double*);
    Function(Index size, void (*function)(const double*, double*)) : d(size), f(function) {}
    Index size() const override { return d; }
    void rhs(const double* y, double* dy) override { f(y, dy); }
};

OdeIntegrator make(Index size, void (*f)(const double*, double*), std::vector<double> start,
                   std::vector<double> times, double rtol, OdeMethod method,
                   Index max_steps = MANY) {
    return OdeIntegrator(std::make_unique<Function>(size, f), std::move(start), std::move(times),
                         rtol, 1e-14, method, max_steps);
}

void oscillator(const double* y, double* dy) {
    dy[0] = y[1];
    dy[1] = -y[0];
}

// y0 decays like 1/t, y1 follows it at rate 1000.
void stiff(const double* y, double* dy) {
    dy[0] = -y[0] * y[0];
    dy[1] = -1000.0 * (y[1] - y[0]);
}

void blow_up(const double* y, double* dy) { dy[0] = y[0] * y[0]; }

// Robertson's reaction (Hairer and Wanner, Solving ODEs II): constants 0.04, 1e4, 3e7.
void robertson(const double* y, double* dy) {
    const double forward = 0.04 * y[0], back = 1e4 * y[1] * y[2], fast = 3e7 * y[1] * y[1];
    dy[0] = back - forward;
    dy[1] = forward - back - fast;
    dy[2] = fast;
}

// Van der Pol with stiffness 1e6, in the time of the relaxation.
void van_der_pol(const double* y, double* dy) {
    dy[0] = y[1];
    dy[1] = 1e6 * ((1.0 - y[0] * y[0]) * y[1] - y[0]);
}

// y0 follows the cosine y1 at rate 1e5: y0 = (a^2 cos t + a sin t)/(1 + a^2) from y0(0) there.
void forced(const double* y, double* dy) {
    dy[0] = -1e5 * (y[0] - y[1]);
    dy[1] = y[2];
    dy[2] = -y[1];
}

struct Implicit : Function {
    using Function::Function;
    bool implicit() const override { return true; }
};

std::vector<double> grid(double end, int count) {
    std::vector<double> t(count + 1);
    for (int i = 0; i <= count; ++i) t[i] = end * i / count;
    return t;
}

}  // namespace

TEST_CASE("DOP853 meets its tolerance on and between its steps") {
    const std::vector<double> t = grid(20.0, 333);
    double previous = 1.0;
    for (double rtol : {1e-4, 1e-6, 1e-8, 1e-10, 1e-12}) {
        OdeIntegrator run = make(2, oscillator, {0.0, 1.0}, t, rtol, OdeMethod::DOP853);
        REQUIRE(run.advance(MANY));
        CHECK(run.status() == Status::SUCCESS);
        REQUIRE(run.saved() == 334);
        double worst = 0.0;
        for (std::size_t i = 0; i < t.size(); ++i) {
            worst = std::max(worst, std::abs(run.values()[2 * i] - std::sin(t[i])));
        }
        CHECK(worst < 50.0 * rtol);
        CHECK(worst < previous);
        previous = worst;
    }
}

TEST_CASE("RKC converges with order two and takes large steps on a stiff problem") {
    double errors[2];
    int i = 0;
    for (double rtol : {1e-6, 1e-9}) {
        OdeIntegrator run = make(2, stiff, {1.0, 0.0}, {100.0}, rtol, OdeMethod::RKC);
        REQUIRE(run.advance(MANY));
        errors[i++] = std::abs(run.values()[0] * 101.0 - 1.0);
        // Stability of an explicit method would ask for about 12 evaluations per 6/1000 of time.
        CHECK(run.evaluations() < 0.55 * 200000);
    }
    CHECK(errors[0] < 10.0 * 1e-6);
    CHECK(errors[1] < 100.0 * 1e-9);
    // Order two: the error falls like rtol to the power 2/3.
    CHECK(errors[1] < errors[0] / 30.0);
}

TEST_CASE("AUTO finishes a long stiff problem with far fewer evaluations than DOP853") {
    const std::vector<double> t = {1.0, 10.0, 1e3, 1e5};
    OdeIntegrator run = make(2, stiff, {1.0, 0.0}, t, 1e-8, OdeMethod::AUTO);
    REQUIRE(run.advance(MANY));
    CHECK(run.stiff_steps() > 0);
    for (std::size_t i = 0; i < t.size(); ++i) {
        CHECK(run.values()[2 * i] == doctest::Approx(1.0 / (1.0 + t[i])).epsilon(1e-6));
    }
    // One per cent of what stability would ask of DOP853, 12 evaluations per 6/1000 of time.
    CHECK(run.evaluations() < 2000000);
}

TEST_CASE("slicing changes no bit") {
    const std::vector<double> t = {0.0, 0.3, 7.0, 50.0, 3000.0};
    for (OdeMethod method :
         {OdeMethod::DOP853, OdeMethod::RKC, OdeMethod::RADAU, OdeMethod::AUTO}) {
        OdeIntegrator whole = make(2, stiff, {1.0, 0.0}, t, 1e-6, method);
        OdeIntegrator sliced = make(2, stiff, {1.0, 0.0}, t, 1e-6, method);
        whole.advance(MANY);
        Index slices = 0;
        while (!sliced.advance(17)) ++slices;
        CHECK(slices > 10);
        REQUIRE(whole.values().size() == sliced.values().size());
        CHECK(std::memcmp(whole.values().data(), sliced.values().data(),
                          sizeof(double) * whole.values().size()) == 0);
    }
}

TEST_CASE("a solution that leaves every bound is DIVERGED, with the values before") {
    OdeIntegrator run = make(1, blow_up, {1.0}, {0.5, 0.9, 2.0}, 1e-8, OdeMethod::AUTO);
    REQUIRE(run.advance(MANY));
    CHECK(run.status() == Status::DIVERGED);
    REQUIRE(run.saved() == 2);
    CHECK(run.values()[1] == doctest::Approx(10.0).epsilon(1e-6));
    CHECK(run.time() == doctest::Approx(1.0).epsilon(1e-6));
}

TEST_CASE("impossible tolerances and exhausted steps have their own status") {
    for (double tolerance : {1e-20, 1e-40, 1e-300}) {
        OdeIntegrator tiny(std::make_unique<Function>(2, oscillator), {0.0, 1.0}, {1.0}, tolerance,
                           tolerance, OdeMethod::DOP853, MANY);
        REQUIRE(tiny.advance(MANY));
        CHECK(tiny.status() == Status::STEP_UNDERFLOW);
    }
    OdeIntegrator few = make(2, oscillator, {0.0, 1.0}, {1e6}, 1e-10, OdeMethod::DOP853, 5);
    REQUIRE(few.advance(MANY));
    CHECK(few.status() == Status::MAX_STEPS);
    CHECK(few.steps() == 5);
}

TEST_CASE("a start that is not finite ends at once") {
    OdeIntegrator run =
        make(1, blow_up, {std::numeric_limits<double>::quiet_NaN()}, {1.0}, 1e-8, OdeMethod::AUTO);
    REQUIRE(run.advance(MANY));
    CHECK(run.status() == Status::DIVERGED);
}

TEST_CASE("only the time zero asked for") {
    OdeIntegrator run = make(1, blow_up, {1.0}, {0.0}, 1e-8, OdeMethod::AUTO);
    REQUIRE(run.advance(MANY));
    CHECK(run.saved() == 1);
    CHECK(run.values()[0] == 1.0);
    CHECK(run.evaluations() == 0);
}

TEST_CASE("RADAU meets its tolerance on and between its steps") {
    const std::vector<double> t = grid(20.0, 333);
    for (double rtol : {1e-4, 1e-6, 1e-8, 1e-10, 1e-12}) {
        OdeIntegrator run = make(2, oscillator, {0.0, 1.0}, t, rtol, OdeMethod::RADAU);
        REQUIRE(run.advance(MANY));
        CHECK(run.status() == Status::SUCCESS);
        REQUIRE(run.saved() == 334);
        double worst = 0.0;
        for (std::size_t i = 0; i < t.size(); ++i) {
            worst = std::max(worst, std::abs(run.values()[2 * i] - std::sin(t[i])));
        }
        CHECK(worst < 100.0 * rtol);
    }
}

TEST_CASE("RADAU needs steps that grow as the tolerance to a small power") {
    Index steps[2];
    int i = 0;
    for (double rtol : {1e-5, 1e-11}) {
        OdeIntegrator run = make(2, oscillator, {0.0, 1.0}, {50.0}, rtol, OdeMethod::RADAU);
        REQUIRE(run.advance(MANY));
        CHECK(std::abs(run.values()[0] - std::sin(50.0)) < 100.0 * rtol);
        steps[i++] = run.steps();
    }
    // The step is chosen by an estimate of order 5: a factor 10 in steps for six decades.
    CHECK(steps[1] < 12 * steps[0]);
}

TEST_CASE("RADAU steps over a fast rate") {
    const double a = 1e5;
    for (double rtol : {1e-6, 1e-9}) {
        OdeIntegrator run =
            make(3, forced, {a * a / (1.0 + a * a), 1.0, 0.0}, {3.0, 10.0}, rtol, OdeMethod::RADAU);
        REQUIRE(run.advance(MANY));
        CHECK(run.steps() < 300);
        for (int i = 0; i < 2; ++i) {
            const double t = i == 0 ? 3.0 : 10.0;
            const double exact = (a * a * std::cos(t) + a * std::sin(t)) / (1.0 + a * a);
            CHECK(std::abs(run.values()[3 * i] - exact) < 100.0 * rtol);
        }
    }
}

TEST_CASE("RADAU solves Robertson's reaction over eleven decades") {
    const std::vector<double> t = {0.4, 40.0, 4e3, 4e5, 4e7, 1e11};
    OdeIntegrator run = make(3, robertson, {1.0, 0.0, 0.0}, t, 1e-9, OdeMethod::RADAU);
    REQUIRE(run.advance(MANY));
    CHECK(run.status() == Status::SUCCESS);
    // At t = 40 and 4e7, as listed for CVODE; at 1e11, the reference of the IVP test set.
    CHECK(run.values()[3] == doctest::Approx(0.7158270688).epsilon(1e-7));
    CHECK(run.values()[4] == doctest::Approx(9.185534765e-6).epsilon(1e-7));
    CHECK(run.values()[15] == doctest::Approx(0.2083340149701255e-7).epsilon(1e-4));
    CHECK(run.values()[16] == doctest::Approx(0.8333360770334713e-13).epsilon(1e-4));
    for (Index i = 0; i < 6; ++i) {
        const double* y = run.values().data() + 3 * i;
        CHECK(y[0] + y[1] + y[2] == doctest::Approx(1.0).epsilon(1e-9));
    }
    CHECK(run.steps() < 1000);
}

TEST_CASE("RADAU solves van der Pol's equation through its jumps") {
    OdeIntegrator run = make(2, van_der_pol, {2.0, 0.0}, {1.0, 2.0}, 1e-9, OdeMethod::RADAU);
    REQUIRE(run.advance(MANY));
    CHECK(run.status() == Status::SUCCESS);
    // Hairer and Wanner: y(1) and y(2).
    CHECK(run.values()[0] == doctest::Approx(-0.1863646254808130e1).epsilon(1e-6));
    CHECK(run.values()[1] == doctest::Approx(0.7535430865435460).epsilon(1e-6));
    CHECK(run.values()[2] == doctest::Approx(0.1706167732170469e1).epsilon(1e-6));
    CHECK(run.values()[3] == doctest::Approx(-0.8928097010248125).epsilon(1e-6));
}

TEST_CASE("AUTO takes RADAU for a stiff system that asks for it") {
    OdeIntegrator run(std::make_unique<Implicit>(2, stiff), {1.0, 0.0}, {1.0, 1e3, 1e6}, 1e-9,
                      1e-14, OdeMethod::AUTO, MANY);
    REQUIRE(run.advance(MANY));
    CHECK(run.stiff());
    CHECK(run.stiff_steps() > 0);
    CHECK(run.evaluations() < 50000);
    for (int i = 0; i < 3; ++i) {
        const double t = i == 0 ? 1.0 : i == 1 ? 1e3 : 1e6;
        CHECK(run.values()[2 * i] == doctest::Approx(1.0 / (1.0 + t)).epsilon(1e-6));
    }
}

TEST_CASE("RADAU has the same endings") {
    OdeIntegrator up = make(1, blow_up, {1.0}, {0.5, 0.9, 2.0}, 1e-8, OdeMethod::RADAU);
    REQUIRE(up.advance(MANY));
    CHECK(up.status() != Status::SUCCESS);
    REQUIRE(up.saved() == 2);
    CHECK(up.values()[1] == doctest::Approx(10.0).epsilon(1e-6));
    OdeIntegrator tiny(std::make_unique<Function>(2, oscillator), {0.0, 1.0}, {1.0}, 1e-40, 1e-40,
                       OdeMethod::RADAU, MANY);
    REQUIRE(tiny.advance(MANY));
    CHECK(tiny.status() == Status::STEP_UNDERFLOW);
    OdeIntegrator few = make(2, oscillator, {0.0, 1.0}, {1e6}, 1e-10, OdeMethod::RADAU, 5);
    REQUIRE(few.advance(MANY));
    CHECK(few.status() == Status::MAX_STEPS);
    CHECK(few.steps() == 5);
}
