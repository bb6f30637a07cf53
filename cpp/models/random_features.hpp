// Random features learned online: the laws of the whole learning curve at any size. Equations and
// normalisations: docs/papers/random_features.md.
#pragma once

#include <cstdint>
#include <vector>

#include "base/types.hpp"
#include "math/gauss.hpp"

namespace overparam::random_features {

// erf(x/sqrt 2), max(x, 0), (x^2 - 1)/sqrt 2, x^2, x, sign(x).
enum class Activation { ERF, RELU, QUAD, SQUARE, LINEAR, SIGN };

// The Hermite series of an activation at unit variance.
const HermiteSeries& hermite_series(Activation g);

// ---- random_features_sphere.cpp
// ------------------------------------------------------------------

// The kernel E[g(x) g(y)] of two points of the sphere in `dim` dimensions, by degree l = 0 .. lmax:
// eigenvalues, multiplicities, energies (their products, which sum to E g^2), and the energy of
// the degrees above.
struct SphereKernel {
    std::vector<double> eigenvalue, multiplicity, energy;
    double tail;
};

SphereKernel sphere_kernel(Activation g, Index dim, Index lmax);

// What the laws of the learning curve depend on: groups of modes that share an eigenvalue lambda >
// 0 of the kernel, each with the number of its modes, its energy (number times eigenvalue) and the
// teacher's energy that can be learned in it. Modes of negligible eigenvalue have the energy `tail`
// in all; `rest` is the teacher's energy in them and in what no student learns. A mean mode that
// has relaxed, and is in none of the groups, has the energy `mean`.
struct Modes {
    std::vector<double> eigenvalue, multiplicity, energy, teacher;
    double tail = 0.0, rest = 0.0, mean = 0.0;
};

// Second layer v and overlap T (M x M, row-major) of the teacher, and E y^2 without noise.
struct Teacher {
    Activation activation;
    std::vector<double> v, T;
    double energy;
};

Modes sphere_modes(Activation g, Index dim, const Teacher& teacher);

// ---- random_features_law.cpp
// ---------------------------------------------------------------------

// 2 eps_min of a student of width K.
double minimal(const Modes& modes, double width);

// K at which 2 eps_min of a teacher that is one of the features is `tol` times its energy.
double width_for(const Modes& modes, double tol);

struct Training {
    double width, lr, noise_var, init_var;
    bool flow;  // gradient flow: neither label noise nor the square of the rate
};

// 2 eps at times tau >= 0 (increasing).
std::vector<double> learning_curve(const Modes& modes, const Training& training,
                                   const std::vector<double>& t);

// ---- random_features_modes.cpp
// -------------------------------------------------------------------

// S = source + sum_k m_k D_k at each time, where D' = pole_k D_k + b_k S in continuous time, or
// D <- D + pole_k D_k + b_k S in steps, in which t counts. weights_k = m_k b_k > 0 and load_k =
// m_k D_k(0), in any order.
std::vector<double> rank_one_response(const std::vector<double>& poles,
                                      const std::vector<double>& weights,
                                      const std::vector<double>& load, double source,
                                      const std::vector<double>& t, bool steps);

// The same in steps of rates that change: D <- (1 - 2 eta lambda) D + eta^2 lambda S, load =
// lambda D and S = source + sum of the load; for Gaussian features 2 (eta lambda)^2 D is added, and
// without noise all terms in eta^2 are left out. S after each of `steps` (increasing, the last
// one the number of rates).
std::vector<double> rank_one_steps(const std::vector<double>& lambda, std::vector<double> load,
                                   double source, const std::vector<double>& rates,
                                   const std::vector<Index>& steps, bool gaussian, bool noise);

// ---- random_features_simulate.cpp ----

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
