// Adaptive integration of autonomous ordinary differential equations, in slices.
#pragma once

#include <algorithm>
#include <memory>
#include <vector>

#include "base/status.hpp"
#include "base/types.hpp"

namespace overparam {

class OdeSystem {
  public:
    virtual ~OdeSystem() = default;
    virtual Index size() const = 0;
    virtual void rhs(const double* y, double* dy) = 0;

    // Called when the stiff method takes over: a system with a symmetry may move y to coordinates
    // that separate slow directions from fast ones, so that the tolerances act on each. True if it
    // did.
    virtual bool change_coordinates(std::vector<double>& /*y*/) { return false; }
    // The state in the coordinates of the start.
    virtual void observe(const double* y, double* out) const { std::copy(y, y + size(), out); }
};

enum class OdeMethod {
    DOP853,  // explicit, order 8, interpolant of order 7
    RKC,     // Runge-Kutta-Chebyshev, order 2: the number of stages follows the stiffness
    AUTO,    // DOP853, and RKC wherever stability limits DOP853 and RKC costs less
};

// y' = f(y) from t = 0, with the values at the times of a grid. Work is done in slices; slicing
// changes no bit of the result.
class OdeIntegrator {
  public:
    OdeIntegrator(std::unique_ptr<OdeSystem> system, std::vector<double> start,
                  std::vector<double> times, double rtol, double atol, OdeMethod method,
                  Index max_steps);

    // Works until about `evaluations` right-hand sides were used. True when there is no more to do.
    bool advance(Index evaluations);

    Index size() const { return d_; }
    double time() const { return t_; }
    const std::vector<double>& values() const { return values_; }  // (saved, size)
    Index saved() const { return saved_; }
    Status status() const { return status_; }
    Index steps() const { return steps_; }
    Index rejected() const { return rejected_; }
    Index evaluations() const { return evaluations_; }
    Index stiff_steps() const { return stiff_steps_; }

  private:
    void rhs(const double* y, double* dy);
    double error_scale(Index i, const double* y, const double* z) const;
    bool below_resolution() const;
    void save(const std::vector<double>& y);
    void first_step();
    void stabilise();
    void dop853_step();
    void rkc_step();
    void accept(double h, const std::vector<double>& y, const std::vector<double>& f);
    void reject(double factor, bool finite);
    double spectral_radius();
    bool watch_stiffness(double h);
    void watch_cost(double h, int stages);

    std::unique_ptr<OdeSystem> system_;
    Index d_;
    std::vector<double> times_, values_;
    double rtol_, atol_;
    OdeMethod method_;
    Index max_steps_;

    bool started_ = false, stabilised_ = false, done_ = false, last_rejected_ = false;
    Status status_ = Status::SUCCESS;
    double t_ = 0.0, h_ = 0.0;
    Index saved_ = 0, steps_ = 0, rejected_ = 0, evaluations_ = 0, stiff_steps_ = 0;
    std::vector<double> y_, f_, next_, next_f_, stage_, k_, dense_, point_;

    // Stiffness of the explicit method, and what each method costs per unit of time.
    int stiff_count_ = 0, smooth_count_ = 0, trial_steps_ = 0;
    double explicit_cost_ = 0.0, explicit_h_ = 0.0, trial_start_ = 0.0, retry_time_ = 0.0;
    Index trial_evaluations_ = 0;

    // RKC: estimate of the spectral radius and its direction.
    double radius_ = 0.0;
    Index radius_age_ = 0;
    std::vector<double> direction_, chebyshev_[3];
};

}  // namespace overparam
