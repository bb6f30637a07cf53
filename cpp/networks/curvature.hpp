// Curvature of the squared loss of a quadratic network f(x) = sum_k a_k (w_k . x)^2 / N on samples,
// without ever forming a matrix.
#pragma once

#include <cstdint>
#include <vector>

#include "base/types.hpp"

namespace overparam {

// Samples either in memory (X (n, N) with labels y (n,)) or drawn again at each use: row i of X is
// a function of (seed, i), its label that of the teacher with noise.
struct SampleSource {
    Index n = 0, N = 0;
    const double *X = nullptr, *y = nullptr;
    std::uint64_t seed = 0;
    const double* W_star = nullptr;  // (ps, N)
    std::vector<double> a_star;
    double noise = 0.0;  // standard deviation
};

class QuadraticCurvature {
  public:
    // W (p, N) row-major; `offset` is added to the error y - f.
    QuadraticCurvature(SampleSource source, const double* W, std::vector<double> a, double offset);

    // out (b, p N) = Hessian of (N/n) sum e^2/2, applied to each row of V (b, p N). The samples are
    // taken in blocks whose number depends on n alone, so that no bit depends on the threads.
    void apply(const double* V, Index b, int threads, double* out) const;

  private:
    struct Tile;
    void measure(Index count, Tile& tile) const;
    void draw(Index first, Index count, Tile& tile) const;
    Index blocks(Index size) const;

    SampleSource source_;
    const double* W_;
    std::vector<double> a_;
    double offset_;
    // The student's fields (n, p) and errors (n,) on samples in memory.
    std::vector<double> fields_, errors_;
};

}  // namespace overparam
