// Random features learned online: the laws of the whole learning curve at any size. Equations and
// normalisations: docs/papers/random_features.md.
#pragma once

#include <cstdint>
#include <vector>

#include "base/types.hpp"

namespace overparam::random_features {

// erf(x/sqrt 2), max(x, 0), (x^2 - 1)/sqrt 2, x^2, x, sign(x).
enum class Activation { ERF, RELU, QUAD, SQUARE, LINEAR, SIGN };

// ---- simulation ----

struct Experiment {
    Index dim = 0, width = 0, replicas = 1, teachers = 1;
    Index block = 128;  // inputs whose features are computed together
    Activation activation = Activation::ERF, teacher_activation = Activation::ERF;
    bool sphere = true;     // rows of norm sqrt(dim), else standard normal
    std::vector<double> v;  // the teacher's second layer
    // Drawn teachers are sqrt(dim) F Q with this F (units, rank) and a random orthonormal Q.
    std::vector<double> frame;
    double noise_var = 0.0;
    std::uint64_t seed = 0;

    Index units() const { return static_cast<Index>(v.size()); }
};

// Online SGD of the second layers: for each replica a first layer and a stream of inputs, which
// several students with teachers of their own share. Every draw is a function of seed, replica and
// step.
class Simulation {
  public:
    // W (width, dim) and B (units, dim) of all replicas; empty: drawn for each replica and teacher.
    Simulation(Experiment experiment, std::vector<double> W, std::vector<double> B, int threads);

    // Steps step ... step + count of a (replicas, width, teachers) at one rate for each. A block
    // never reaches beyond `count`.
    void advance(const double* rates, Index step, Index count, double* a, int threads) const;

    // Second layers (replicas, width, teachers) of normals.
    void start(double init_var, double* a) const;

    const Experiment& experiment() const { return e_; }
    // First layer and teachers (teachers, units, dim) of one replica.
    const double* first_layer(Index replica) const { return W_.data() + replica * W_stride_; }
    const double* teachers(Index replica) const { return B_.data() + replica * B_stride_; }
    // Inputs (count, dim) and label noise (count, teachers) of one replica.
    void inputs(Index replica, Index step, Index count, double* X) const;
    void label_noise(Index replica, Index step, Index count, double* noise) const;

  private:
    class Block;

    Experiment e_;
    std::vector<double> W_, B_;
    Index W_stride_, B_stride_;  // 0 where the replicas share the array
};

// Mean over the teachers of the risk of a (replicas, width, teachers). There are `grams` matrices G
// (width, width), and `crosses` moments r (width, teachers) with energies E y^2 (teachers): one for
// each replica, or one for all.
void risks(const double* gram, Index grams, const double* cross, const double* energy,
           Index crosses, const double* a, Index replicas, Index width, Index teachers, int threads,
           double* out);

}  // namespace overparam::random_features
