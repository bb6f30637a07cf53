#include <Eigen/Dense>
#include <cmath>
#include <utility>

#include "models/population_flow.hpp"
#include "models/population_flow_shared.hpp"

namespace overparam::population_flow {

using Eigen::Map;
using Eigen::MatrixXd;
using Eigen::VectorXd;

namespace {

Map<const VectorXd> teacher(const Model& model) { return {model.mu.data(), model.d()}; }

}  // namespace

double shift_of(const Model& model, double trace) {
    return model.kappa * (trace - teacher(model).sum()) + model.lam;
}

void fields_of(const Model& model, const MatrixXd& S, double shift_integral, double* out) {
    const Map<const VectorXd> mu = teacher(model);
    MatrixXd A = S;
    A.diagonal() -= mu;
    const double deviation = A.trace();
    out[DISTANCE2] = A.squaredNorm();
    out[LOSS] = out[DISTANCE2] + model.kappa * deviation * deviation;
    out[TRACE] = mu.sum() + deviation;
    out[OVERLAP] = mu.dot(S.diagonal());
    out[SHIFT] = model.kappa * deviation + model.lam;
    out[SHIFT_INTEGRAL] = shift_integral;
}

double steepest(const Model& model, const RowMatrix& W, RowMatrix& out) {
    const double s = shift_of(model, W.squaredNorm());
    out = (s - teacher(model).array()).matrix().asDiagonal() * W;
    if (W.cols() <= W.rows()) {
        const MatrixXd gram = W.transpose() * W;
        out.noalias() += W * gram;
    } else {
        const MatrixXd S = W * W.transpose();
        out.noalias() += S * W;
    }
    return s;
}

namespace {

// Weights up to this number of entries are integrated implicitly where the equation is stiff.
constexpr Index SMALL = 400;

// State: W row-major, then sigma.
class WeightFlow : public OdeSystem {
  public:
    WeightFlow(const Model& model, bool keep)
        : model_(model), keep_(keep), W_(model.d(), model.m), G_(model.d(), model.m) {}

    Index size() const override { return W_.size() + 1; }
    Index observed_size() const override { return FIELDS + (keep_ ? model_.d() * model_.d() : 0); }
    bool implicit() const override { return size() <= SMALL; }

    void rhs(const double* y, double* dy) override {
        W_ = Map<const RowMatrix>(y, W_.rows(), W_.cols());
        dy[W_.size()] = steepest(model_, W_, G_);
        Map<RowMatrix>(dy, W_.rows(), W_.cols()) = -G_;
    }

    void observe(const double* y, double* out) override {
        W_ = Map<const RowMatrix>(y, W_.rows(), W_.cols());
        const MatrixXd S = W_ * W_.transpose();
        fields_of(model_, S, y[W_.size()], out);
        if (keep_) Map<MatrixXd>(out + FIELDS, S.rows(), S.cols()) = S;
    }

  private:
    Model model_;
    bool keep_;
    RowMatrix W_, G_;
};

// State: W+ and W- row-major, then sigma.
class SignedFlow : public OdeSystem {
  public:
    SignedFlow(const Model& model, Index m_minus)
        : model_(model), plus_(model.d(), model.m), minus_(model.d(), m_minus) {}

    Index size() const override { return plus_.size() + minus_.size() + 1; }
    Index observed_size() const override { return FIELDS; }
    bool implicit() const override { return size() <= SMALL; }

    void rhs(const double* y, double* dy) override {
        load(y);
        MatrixXd G = plus_ * plus_.transpose();
        G.noalias() -= minus_ * minus_.transpose();
        G.diagonal() -= teacher(model_);
        const double s = model_.kappa * G.trace() + model_.lam;
        G.diagonal().array() += s;
        Map<RowMatrix>(dy, plus_.rows(), plus_.cols()).noalias() = -G * plus_;
        Map<RowMatrix>(dy + plus_.size(), minus_.rows(), minus_.cols()).noalias() = G * minus_;
        dy[size() - 1] = s;
    }

    void observe(const double* y, double* out) override {
        load(y);
        MatrixXd S = plus_ * plus_.transpose();
        S.noalias() -= minus_ * minus_.transpose();
        fields_of(model_, S, y[size() - 1], out);
    }

  private:
    void load(const double* y) {
        plus_ = Map<const RowMatrix>(y, plus_.rows(), plus_.cols());
        minus_ = Map<const RowMatrix>(y + plus_.size(), minus_.rows(), minus_.cols());
    }

    Model model_;
    RowMatrix plus_, minus_;
};

std::unique_ptr<Run> integrate(std::unique_ptr<OdeSystem> system, std::vector<double> start,
                               const Numerics& n) {
    start.push_back(0.0);
    return std::make_unique<OdeIntegrator>(std::move(system), std::move(start), n.t, n.rtol, n.atol,
                                           OdeMethod::AUTO, n.max_steps);
}

}  // namespace

std::unique_ptr<Run> weights(const Model& model, const double* W0, const Numerics& numerics,
                             bool keep) {
    return integrate(std::make_unique<WeightFlow>(model, keep),
                     std::vector<double>(W0, W0 + model.d() * model.m), numerics);
}

std::unique_ptr<Run> signed_weights(const Model& model, Index m_minus, const double* W_plus,
                                    const double* W_minus, const Numerics& numerics) {
    std::vector<double> start(W_plus, W_plus + model.d() * model.m);
    start.insert(start.end(), W_minus, W_minus + model.d() * m_minus);
    return integrate(std::make_unique<SignedFlow>(model, m_minus), std::move(start), numerics);
}

double descend(const Model& model, double rate, double* W, Index steps) {
    RowMatrix state = Map<const RowMatrix>(W, model.d(), model.m);
    RowMatrix G(model.d(), model.m);
    double sum = 0.0;
    for (Index step = 0; step < steps; ++step) {
        sum += rate * steepest(model, state, G);
        state -= rate * G;
    }
    Map<RowMatrix>(W, model.d(), model.m) = state;
    return sum;
}

void measure(const Model& model, const double* W, double* fields) {
    const Map<const RowMatrix> state(W, model.d(), model.m);
    const MatrixXd S = state * state.transpose();
    fields_of(model, S, 0.0, fields);
}

}  // namespace overparam::population_flow
