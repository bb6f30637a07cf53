// The two stages of training, simulated: a gradient step on the first layer, then ridge regression
// of the second. Equations and normalisations: docs/papers/giant_step.md.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "base/types.hpp"

namespace overparam::giant_step {

// What is applied to each pre-activation; TABLE: a function given by its values.
enum class Nonlinearity {
    TANH,
    RELU,
    ERF,  // erf(x/sqrt 2)
    SIN,
    SOFTPLUS,
    LINEAR,
    SINLIN,  // sin 2x + x
    SIN2,    // sin 2x
    HE3,     // x + (x^3 - 3x)/sqrt 6
    QUAD1,   // x + (x^2 - 1)/2
    TABLE,
};

struct Scalar {
    Nonlinearity kind = Nonlinearity::TANH;
    // Of a table: f and f' at the points (i - (size - 1)/2) step. Between them f is the cubic with
    // these values and slopes, and beyond them NaN.
    std::vector<double> value, slope;
    double step = 1.0;
};

// f(z), or f'(z), in place of z.
void evaluate(const Scalar& f, double* z, Index count);
void evaluate_slope(const Scalar& f, double* z, Index count);

struct Experiment {
    Index dim = 0, width = 0, samples = 0;
    Index first_samples = 0;  // 0: the first layer stays as it was drawn
    Index test_samples = 0;
    std::vector<Index> group;     // neurons of each group
    std::vector<double> readout;  // their initial readout values
    double lr = 0.0, ridge = 0.0, noise_var = 0.0;
    // Instead of a gradient step: rows of norm sqrt(variance) plus strength times one direction.
    bool spiked = false;
    std::vector<double> strength, variance;  // of each group
    double alignment = 0.0;                  // of the target with that direction
    Scalar activation, target;
    std::uint64_t seed = 0;
};

// Work is counted in units, those of a replica after those of the one before. Every draw is a
// function of seed, replica and sample; the law is that of the target's direction along the first
// axis, and for spiked weights of the spike along it.
class Simulation {
  public:
    static constexpr Index MEASURES = 5;

    explicit Simulation(Experiment experiment);
    ~Simulation();

    // Units of one replica.
    Index units() const;
    // Bytes that one replica needs, and how many of them `advance` may keep at once.
    double memory() const;
    Index together(int threads) const;
    // Performs units first .. first + count, after those before them if they were not the last ones
    // performed. Finished replicas write risk, train risk, class error (NaN where the regression
    // failed), alignment of the gradient with the target, and its norm, to measures (replicas,
    // MEASURES).
    void advance(Index first, Index count, double* measures, int threads);
    // Largest argument of a table so far.
    double largest() const { return largest_; }

    const Experiment& experiment() const { return e_; }
    // What one replica draws: its first layer (width, dim) before the step, and inputs (samples,
    // dim) and label noise (samples) of stage 0 (gradient step), 1 (regression) or 2 (test).
    void first_layer(Index replica, double* W) const;
    void data(Index replica, int stage, double* X, double* noise) const;

  private:
    class Replica;

    Experiment e_;
    std::unique_ptr<Replica> current_;
    Index at_ = 0;  // its next unit, counted from the first replica's first
    double largest_ = 0.0;
};

}  // namespace overparam::giant_step
