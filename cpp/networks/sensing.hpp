// Linear measurements tr(X_mu S) of S = W W^T by symmetric matrices X_mu: the squared loss of given
// labels and its gradient.
#pragma once

#include <cstdint>
#include <vector>

#include "base/types.hpp"

namespace overparam {

class Sensing {
  public:
    virtual ~Sensing() = default;

    // With weights W (d, m), row-major, and r_mu = tr(X_mu S) - y_mu: returns (1/n) sum r^2, and
    // writes (1/n) sum r_mu X_mu W to `gradient` (d, m). No bit depends on the threads.
    virtual double loss_gradient(const double* W, Index m, int threads, double* gradient) = 0;
};

// Independent matrices of the standard GOE(d), variance 1/d off the diagonal and 2/d on it: a
// function of (seed, replica) and of the number of the sample. They are rounded to single
// precision, in which they are kept; all arithmetic is double.
struct GoeSource {
    Index d = 0;
    std::uint64_t seed = 0, replica = 0;

    // Length of the upper triangle, and of its padded rows in memory.
    Index size() const { return d * (d + 1) / 2; }
    Index stride() const;
    // The upper triangle of sample mu by rows, stride() entries with zeros at the end. `work` holds
    // as many doubles.
    void draw(Index mu, double* work, float* out) const;
};

// y_mu = tr(X_mu S*) + noise_mu, in memory as n packed rows that each gradient reads once.
class GoeSamples : public Sensing {
  public:
    GoeSamples(GoeSource source, Index n, const double* S_star, const double* noise, int threads);

    double loss_gradient(const double* W, Index m, int threads, double* gradient) override;
    const std::vector<double>& labels() const { return y_; }

  private:
    GoeSource source_;
    Index n_, stride_, blocks_;
    std::vector<float> X_;
    std::vector<double> y_;
    std::vector<std::vector<double>> partial_;
    std::vector<double> losses_;
};

// The same loss through the matrix (1/n) sum X_mu X_mu^T on packed symmetric matrices, of which one
// half is kept: less to read where n > d (d + 1)/2.
class GoeGram : public Sensing {
  public:
    GoeGram(GoeSource source, Index n, const double* S_star, const double* noise, int threads);

    double loss_gradient(const double* W, Index m, int threads, double* gradient) override;

  private:
    Index width(Index panel) const;

    Index d_, size_, panels_;
    // Panel p holds the rows from its own columns on, column-major.
    std::vector<std::vector<double>> gram_, partial_;
    std::vector<double> target_, cross_;  // S* packed, (1/n) sum noise_mu X_mu
    double noise2_ = 0.0;                 // (1/n) sum noise^2
};

}  // namespace overparam
