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
    // What is recorded at the times of the grid, observed_size() numbers: by default the state, in
    // the coordinates of the start.
    virtual Index observed_size() const { return size(); }
    virtual void observe(const double* y, double* out) { std::copy(y, y + size(), out); }

    // Whether stiffness is met by the implicit method, whose cost grows as size()^3, instead of the
    // stabilised one.
    virtual bool implicit() const { return false; }
};

enum class OdeMethod {
    DOP853,  // explicit, order 8, interpolant of order 7
    RKC,     // Runge-Kutta-Chebyshev, order 2: the number of stages follows the stiffness
    RADAU,   // Radau IIA, order 9, implicit, with a Jacobian by differences
    AUTO,    // DOP853 until stability limits it; then RADAU for systems that say implicit(), and
             // for the others RKC wherever it costs less
};

// A computation in slices that records numbers at the times of a grid. Slicing changes no bit.
class Run {
  public:
    virtual ~Run() = default;
    // Works until about `evaluations` right-hand sides were used. True when there is no more to do.
    virtual bool advance(Index evaluations) = 0;

    virtual double time() const = 0;
    virtual Index observed_size() const = 0;
    virtual const std::vector<double>& values() const = 0;  // (saved, observed_size)
    virtual Index saved() const = 0;
    virtual Status status() const = 0;
    virtual Index steps() const = 0;
    virtual Index rejected() const = 0;
    virtual Index evaluations() const = 0;
    virtual Index stiff_steps() const = 0;
};

struct RadauWorkspace;

// y' = f(y) from t = 0, with the values at the times of a grid.
class OdeIntegrator : public Run {
  public:
    OdeIntegrator(std::unique_ptr<OdeSystem> system, std::vector<double> start,
                  std::vector<double> times, double rtol, double atol, OdeMethod method,
                  Index max_steps);
    ~OdeIntegrator() override;

    bool advance(Index evaluations) override;

    double time() const override { return t_; }
    Index observed_size() const override { return observed_; }
    const std::vector<double>& values() const override { return values_; }
    Index saved() const override { return saved_; }
    Status status() const override { return status_; }
    Index steps() const override { return steps_; }
    Index rejected() const override { return rejected_; }
    Index evaluations() const override { return evaluations_; }
    Index stiff_steps() const override { return stiff_steps_; }
    // Whether a method for stiff equations has taken over.
    bool stiff() const { return stabilised_; }
    const OdeSystem& system() const { return *system_; }

  private:
    void rhs(const double* y, double* dy);
    double error_scale(Index i, const double* y, const double* z) const;
    bool below_resolution() const;
    void save(const std::vector<double>& y);
    void first_step();
    void stabilise();
    void dop853_step();
    void rkc_step();
    void radau_step();
    void differentiate();
    bool solve_collocation();
    void accept(double h, const std::vector<double>& y, const std::vector<double>& f);
    void reject(double factor, bool finite);
    double spectral_radius();
    bool watch_stiffness(double h);
    void watch_cost(double h, int stages);

    std::unique_ptr<OdeSystem> system_;
    Index d_, observed_;
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

    std::unique_ptr<RadauWorkspace> radau_;
};

}  // namespace overparam
