#include <Eigen/Dense>
#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "models/population_flow.hpp"
#include "models/population_flow_shared.hpp"

namespace overparam::population_flow {

namespace {

using Eigen::ArrayXd;
using Eigen::Map;
using Eigen::MatrixXd;

// A segment ends where the exponents of the closed solution have grown by this much.
constexpr double GROWTH = 4.0;

// An equivalent, smaller start: of the rows with mu = 0 only the Gram matrix matters, and units
// beyond the rank of W0 can be rotated away.
void compress(Model& model, MatrixXd& W) {
    std::vector<Index> learned, null;
    for (Index i = 0; i < model.d(); ++i) (model.mu[i] != 0.0 ? learned : null).push_back(i);
    const Index rest = static_cast<Index>(null.size()), m = W.cols();
    if (rest > m) {
        MatrixXd others(rest, m);
        for (Index i = 0; i < rest; ++i) others.row(i) = W.row(null[i]);
        const Eigen::HouseholderQR<MatrixXd> qr(others);
        const Index r = static_cast<Index>(learned.size());
        MatrixXd smaller(r + m, m);
        std::vector<double> mu;
        for (Index i = 0; i < r; ++i) {
            smaller.row(i) = W.row(learned[i]);
            mu.push_back(model.mu[learned[i]]);
        }
        smaller.bottomRows(m) = qr.matrixQR().topRows(m).triangularView<Eigen::Upper>();
        mu.resize(r + m, 0.0);
        W = std::move(smaller);
        model.mu = std::move(mu);
    }
    if (W.cols() > W.rows()) {
        const Eigen::HouseholderQR<MatrixXd> qr(W.transpose());
        const MatrixXd upper = qr.matrixQR().topRows(W.rows()).triangularView<Eigen::Upper>();
        W = upper.transpose();
        model.m = W.cols();
    }
}

// The closed solution from weights `B`, in time since then.
class Segment : public OdeSystem {
  public:
    Segment(const Model& model, MatrixXd B, double sigma, bool keep)
        : model_(model),
          B_(std::move(B)),
          mu_(Map<const ArrayXd>(model_.mu.data(), model_.d())),
          sigma_(sigma),
          keep_(keep) {}

    // tau, sigma since the start, k_i.
    Index size() const override { return 2 + model_.d(); }
    Index observed_size() const override { return FIELDS + (keep_ ? model_.d() * model_.d() : 0); }
    bool implicit() const override { return true; }

    void rhs(const double* y, double* dy) override {
        evaluate(y);
        dy[0] = 1.0;
        dy[1] = shift_of(model_, X_.squaredNorm());
        Map<ArrayXd>(dy + 2, model_.d()) = e_.square();
    }

    void observe(const double* y, double* out) override {
        evaluate(y);
        recorded_ = X_.transpose();
        const MatrixXd S = recorded_ * X_;
        fields_of(model_, S, sigma_ + y[1], out);
        if (keep_) Map<MatrixXd>(out + FIELDS, S.rows(), S.cols()) = S;
    }

    // Weights at the time that was last observed.
    const MatrixXd& recorded() const { return recorded_; }

  private:
    void evaluate(const double* y) {
        e_ = (y[0] * mu_ - y[1]).exp();
        const Map<const ArrayXd> k(y + 2, model_.d());
        scaled_ = k.max(0.0).sqrt().matrix().asDiagonal() * B_;
        M_.noalias() = 2.0 * scaled_.transpose() * scaled_;
        M_.diagonal().array() += 1.0;
        const Eigen::LLT<MatrixXd> factor(M_);
        X_ = factor.matrixL().solve(B_.transpose());
        X_ *= e_.matrix().asDiagonal();
        if (factor.info() != Eigen::Success) X_.setConstant(NAN);
    }

    Model model_;
    MatrixXd B_;
    ArrayXd mu_, e_;
    double sigma_;
    bool keep_;
    MatrixXd scaled_, M_, X_, recorded_;
};

// What both routes in segments share: the times, the records and the state between segments.
class SegmentedRun : public Run {
  public:
    SegmentedRun(const Model& model, const double* W0, const Numerics& numerics, bool keep)
        : model_(model), numerics_(numerics), keep_(keep) {
        B_ = Map<const RowMatrix>(W0, model.d(), model.m);
        if (!keep) compress(model_, B_);
        largest_ = 0.0;
        for (double mu : model_.mu) largest_ = std::max(largest_, std::abs(mu));
        values_.resize(numerics_.t.size() * observed_size());
    }

    Index observed_size() const override { return FIELDS + (keep_ ? model_.d() * model_.d() : 0); }
    const std::vector<double>& values() const override { return values_; }
    Index saved() const override { return saved_; }
    Status status() const override { return status_; }

  protected:
    void store(const double* fields) {
        std::copy_n(fields, observed_size(), values_.data() + saved_ * observed_size());
        ++saved_;
    }
    bool complete() const { return saved_ == static_cast<Index>(numerics_.t.size()); }

    Model model_;
    Numerics numerics_;
    bool keep_;
    MatrixXd B_;
    double begin_ = 0.0, sigma_ = 0.0, largest_;
    std::vector<double> values_;
    Index saved_ = 0;
    Status status_ = Status::SUCCESS;
};

// Once the loss is near its limit, where segments would repeat the same exponentials over and over,
// the equation for W takes over: all that is left there is decay.
class RestartRun : public SegmentedRun {
  public:
    RestartRun(const Model& model, const double* W0, const Numerics& numerics, double limit,
               bool keep)
        : SegmentedRun(model, W0, numerics, keep), limit_(limit) {
        for (double mu : model_.mu) near_ += NEAR * mu * mu;
    }

    bool advance(Index evaluations) override {
        const Index stop = this->evaluations() + evaluations;
        while (!complete() && status_ == Status::SUCCESS && this->evaluations() < stop) {
            if (!core_) begin();
            const bool done = core_->advance(stop - this->evaluations());
            collect();
            if (!done) return false;
            if (core_->status() != Status::SUCCESS) {
                status_ = core_->status();
            } else if (!complete()) {
                end();
            }
        }
        return complete() || status_ != Status::SUCCESS;
    }

    double time() const override { return begin_ + (core_ ? core_->time() : 0.0); }
    Index steps() const override { return steps_ + (core_ ? core_->steps() : 0); }
    Index rejected() const override { return rejected_ + (core_ ? core_->rejected() : 0); }
    Index evaluations() const override { return evaluations_ + (core_ ? core_->evaluations() : 0); }
    Index stiff_steps() const override { return stiff_steps_ + (core_ ? core_->stiff_steps() : 0); }

  private:
    // Distance of the loss from its limit, over ||S*||^2, at which it counts as near.
    static constexpr double NEAR = 1e-4;

    void begin() {
        const double s = shift_of(model_, B_.squaredNorm());
        const double rate = largest_ + std::abs(s);
        const double left = numerics_.t.back() - begin_;
        const bool last = rate * left <= GROWTH;
        length_ = last || settled_ ? left : GROWTH / rate;
        Numerics numerics = numerics_;
        numerics.t.clear();
        for (std::size_t i = saved_; i < numerics_.t.size(); ++i) {
            const double t = numerics_.t[i] - begin_;
            if (length_ < left && t >= length_) break;
            numerics.t.push_back(t);
        }
        inside_ = static_cast<Index>(numerics.t.size());
        collected_ = 0;
        if (length_ < left) numerics.t.push_back(length_);
        numerics.max_steps -= steps_;
        if (settled_) {
            const RowMatrix W = B_;
            core_ = weights(model_, W.data(), numerics, keep_);
            return;
        }
        auto segment = std::make_unique<Segment>(model_, B_, sigma_, keep_);
        segment_ = segment.get();
        std::vector<double> start(segment->size(), 0.0);
        auto core = std::make_unique<OdeIntegrator>(
            std::move(segment), std::move(start), std::move(numerics.t), numerics.rtol,
            numerics.atol, stiff_ ? OdeMethod::RADAU : OdeMethod::AUTO, numerics.max_steps);
        integrator_ = core.get();
        core_ = std::move(core);
    }

    void collect() {
        for (; collected_ < std::min(inside_, core_->saved()); ++collected_) {
            const Index first = saved_ * observed_size();
            store(core_->values().data() + collected_ * observed_size());
            if (settled_) values_[first + SHIFT_INTEGRAL] += sigma_;
        }
    }

    void end() {
        const double* fields = core_->values().data() + inside_ * observed_size();
        sigma_ = fields[SHIFT_INTEGRAL];
        settled_ = std::abs(fields[LOSS] - limit_) <= near_;
        B_ = segment_->recorded();
        begin_ += length_;
        steps_ += core_->steps();
        rejected_ += core_->rejected();
        evaluations_ += core_->evaluations();
        stiff_steps_ += core_->stiff_steps();
        stiff_ = integrator_->stiff();
        core_.reset();
    }

    double limit_, near_ = 0.0;
    std::unique_ptr<Run> core_;
    OdeIntegrator* integrator_ = nullptr;
    Segment* segment_ = nullptr;
    double length_ = 0.0;
    Index inside_ = 0, collected_ = 0;
    bool stiff_ = false, settled_ = false;
    Index steps_ = 0, rejected_ = 0, evaluations_ = 0, stiff_steps_ = 0;
};

class DirectRun : public SegmentedRun {
  public:
    DirectRun(const Model& model, const double* W0, const Numerics& numerics, bool keep)
        : SegmentedRun(model, W0, numerics, keep),
          mu_(Map<const ArrayXd>(model_.mu.data(), model_.d())) {
        const double rate = (mu_ - model_.lam).abs().maxCoeff();
        length_ = rate > 0.0 ? GROWTH / rate : std::numeric_limits<double>::infinity();
    }

    bool advance(Index evaluations) override {
        const Index stop = evaluations_ + evaluations;
        while (!complete() && evaluations_ < stop) {
            const double t = numerics_.t[saved_] - begin_;
            ++evaluations_;
            if (t > length_) {
                B_ = at(length_).transpose();
                begin_ += length_;
                continue;
            }
            const MatrixXd X = at(t);
            const MatrixXd S = X.transpose() * X;
            std::vector<double> record(observed_size());
            fields_of(model_, S, model_.lam * (begin_ + t), record.data());
            if (keep_) Map<MatrixXd>(record.data() + FIELDS, S.rows(), S.cols()) = S;
            store(record.data());
        }
        return complete();
    }

    double time() const override { return saved_ ? numerics_.t[saved_ - 1] : begin_; }
    Index steps() const override { return evaluations_; }
    Index rejected() const override { return 0; }
    Index evaluations() const override { return evaluations_; }
    Index stiff_steps() const override { return 0; }

  private:
    // X with S = X^T X a time t after the start of the segment.
    MatrixXd at(double t) const {
        const Index d = model_.d(), m = model_.m;
        MatrixXd stacked(m + d, m);
        stacked.topRows(m).setIdentity();
        ArrayXd growth(d);
        for (Index i = 0; i < d; ++i) {
            const double rate = 2.0 * (mu_(i) - model_.lam);
            const double k = rate == 0.0 ? t : std::expm1(rate * t) / rate;
            stacked.row(m + i) = std::sqrt(2.0 * k) * B_.row(i);
            growth(i) = std::exp(0.5 * rate * t);
        }
        const Eigen::HouseholderQR<MatrixXd> qr(stacked);
        MatrixXd X = qr.matrixQR().topRows(m).triangularView<Eigen::Upper>().transpose().solve(
            MatrixXd(B_.transpose()));
        X *= growth.matrix().asDiagonal();
        return X;
    }

    ArrayXd mu_;
    double length_;
    Index evaluations_ = 0;
};

}  // namespace

std::unique_ptr<Run> restart(const Model& model, const double* W0, const Numerics& numerics,
                             double limit, bool keep) {
    return std::make_unique<RestartRun>(model, W0, numerics, limit, keep);
}

std::unique_ptr<Run> direct(const Model& model, const double* W0, const Numerics& numerics,
                            bool keep) {
    return std::make_unique<DirectRun>(model, W0, numerics, keep);
}

}  // namespace overparam::population_flow
