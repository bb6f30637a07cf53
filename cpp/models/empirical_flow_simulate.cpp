#include <Eigen/Dense>
#include <algorithm>
#include <cmath>
#include <utility>

#include "base/blas.hpp"
#include "base/rng.hpp"
#include "base/threads.hpp"
#include "models/empirical_flow.hpp"
#include "networks/quadratic.hpp"

namespace overparam::empirical_flow {

namespace {

using RowMatrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Eigen::Map;
using Eigen::MatrixXd;
using Eigen::VectorXd;

// Samples whose labels are computed together; operations of a gradient below which threads cost
// more than they save.
constexpr Index TILE = 256;
constexpr double PARALLEL = 2e7;

// `count` normals times `scale`.
std::vector<double> normals(const Experiment& e, rng::Purpose purpose, std::uint64_t step,
                            std::uint64_t replica, Index count, double scale) {
    const Index blocks = (count + 2 * LANES - 1) / (2 * LANES);
    std::vector<double> out(blocks * 2 * LANES);
    rng::fill_normals(rng::stream_key(e.seed, purpose), step, replica, blocks, out.data());
    out.resize(count);
    for (double& x : out) x *= scale;
    return out;
}

// Inputs (n, d) over d^{1/4}, for which the network is |W^T x|^2 - |W|^2/sqrt d.
std::vector<double> draw_inputs(const Experiment& e, std::uint64_t replica, int threads) {
    const double scale = std::pow(static_cast<double>(e.d), -0.25);
    const Index packs = (e.d + 2 * LANES - 1) / (2 * LANES);
    const rng::Key key = rng::stream_key(e.seed, rng::Purpose::DATA);
    std::vector<double> X(e.n * e.d);
    parallel_for((e.n + TILE - 1) / TILE, threads, [&](Index b) {
        std::vector<double> row(packs * 2 * LANES);
        for (Index mu = b * TILE; mu < std::min(e.n, (b + 1) * TILE); ++mu) {
            rng::fill_normals(key, static_cast<std::uint64_t>(mu), replica, packs, row.data());
            for (Index i = 0; i < e.d; ++i) X[mu * e.d + i] = scale * row[i];
        }
    });
    return X;
}

class Descent : public Run {
  public:
    Descent(std::shared_ptr<const Network> network, std::vector<double> W, std::vector<double> lr,
            std::vector<Index> steps, bool eigenvalues)
        : network_(std::move(network)),
          W_(std::move(W)),
          gradient_(W_.size()),
          lr_(std::move(lr)),
          due_(std::move(steps)),
          eigenvalues_(eigenvalues),
          values_(due_.size() * observed_size()) {}

    bool advance(Index evaluations) override {
        const Index stop = evaluations_ + evaluations;
        while (!done_ && evaluations_ < stop) {
            const double train_risk = network_->loss_gradient(W_.data(), gradient_.data());
            ++evaluations_;
            if (!std::isfinite(train_risk)) {
                status_ = Status::DIVERGED;
                done_ = true;
                break;
            }
            if (due_[saved_] == steps_) {
                network_->measure(W_.data(), train_risk, eigenvalues_,
                                  values_.data() + saved_ * observed_size());
                done_ = ++saved_ == static_cast<Index>(due_.size());
                if (done_) break;
            }
            const double rate = lr_[std::min(steps_, static_cast<Index>(lr_.size()) - 1)];
            for (std::size_t i = 0; i < W_.size(); ++i) W_[i] -= rate * gradient_[i];
            time_ += rate;
            ++steps_;
        }
        return done_;
    }

    double time() const override { return time_; }
    Index observed_size() const override { return FIELDS + (eigenvalues_ ? network_->d() : 0); }
    const std::vector<double>& values() const override { return values_; }
    Index saved() const override { return saved_; }
    Status status() const override { return status_; }
    Index steps() const override { return steps_; }
    Index rejected() const override { return 0; }
    Index evaluations() const override { return evaluations_; }
    Index stiff_steps() const override { return 0; }

  private:
    std::shared_ptr<const Network> network_;
    std::vector<double> W_, gradient_, lr_;
    std::vector<Index> due_;
    bool eigenvalues_, done_ = false;
    std::vector<double> values_;
    Status status_ = Status::SUCCESS;
    double time_ = 0.0;
    Index saved_ = 0, steps_ = 0, evaluations_ = 0;
};

class Flow : public OdeSystem {
  public:
    Flow(std::shared_ptr<const Network> network, bool eigenvalues)
        : network_(std::move(network)), eigenvalues_(eigenvalues), gradient_(size()) {}

    Index size() const override { return network_->d() * network_->m(); }
    void rhs(const double* W, double* dW) override {
        network_->loss_gradient(W, dW);
        for (Index i = 0; i < size(); ++i) dW[i] = -dW[i];
    }
    Index observed_size() const override { return FIELDS + (eigenvalues_ ? network_->d() : 0); }
    void observe(const double* W, double* out) override {
        network_->measure(W, network_->loss_gradient(W, gradient_.data()), eigenvalues_, out);
    }

  private:
    std::shared_ptr<const Network> network_;
    bool eigenvalues_;
    std::vector<double> gradient_;
};

}  // namespace

Network::Network(const Experiment& experiment, std::uint64_t replica, int threads)
    : e_(experiment), replica_(replica), threads_(threads), S_star_(e_.d * e_.d) {
    if (4.0 * static_cast<double>(e_.n * e_.d * std::max(e_.m, e_.d)) < PARALLEL) threads_ = 1;
    Map<RowMatrix> S(S_star_.data(), e_.d, e_.d);
    S.setZero();
    if (e_.teacher.empty()) {
        const std::vector<double> G =
            normals(e_, rng::Purpose::TEACHER, 0, replica, e_.d * e_.teacher_width, 1.0);
        const Map<const RowMatrix> factor(G.data(), e_.d, e_.teacher_width);
        S.noalias() = factor * factor.transpose();
        S *= e_.teacher_scale / static_cast<double>(e_.teacher_width);
    } else {
        S.diagonal() = Map<const VectorXd>(e_.teacher.data(), e_.d);
    }
    noise_ = normals(e_, rng::Purpose::LABEL_NOISE, 0, replica, e_.n, std::sqrt(e_.noise_var));
    if (e_.design == Design::GOE) {
        const GoeSource source{e_.d, e_.seed, replica};
        if (e_.n > source.size()) {
            sensing_ =
                std::make_unique<GoeGram>(source, e_.n, S_star_.data(), noise_.data(), threads);
        } else {
            sensing_ =
                std::make_unique<GoeSamples>(source, e_.n, S_star_.data(), noise_.data(), threads);
        }
        return;
    }
    inputs_ = draw_inputs(e_, replica, threads);
    labels_ = noise_;
    const double centring = 1.0 / std::sqrt(static_cast<double>(e_.d)), trace = S.trace();
    parallel_for((e_.n + TILE - 1) / TILE, threads, [&](Index b) {
        const Index first = b * TILE, count = std::min(TILE, e_.n - first);
        RowMatrix image(count, e_.d);
        const double* X = inputs_.data() + first * e_.d;
        const int d = static_cast<int>(e_.d);
        blas::gemm(d, static_cast<int>(count), d, 1.0, S_star_.data(), X, 0.0, image.data());
        for (Index i = 0; i < count; ++i) {
            labels_[first + i] +=
                image.row(i).dot(Map<const Eigen::RowVectorXd>(X + i * e_.d, e_.d)) -
                centring * trace;
        }
    });
    sensing_ =
        std::make_unique<QuadraticSamples>(inputs_.data(), labels_.data(), e_.n, e_.d, centring);
}

std::vector<double> Network::start(std::uint64_t attempt) const {
    return normals(e_, rng::Purpose::STUDENT, attempt, replica_, e_.d * e_.m,
                   e_.init_scale / std::sqrt(static_cast<double>(e_.m)));
}

double Network::loss_gradient(const double* W, double* gradient) const {
    const double train_risk = sensing_->loss_gradient(W, e_.m, threads_, gradient);
    const double half = 0.5 * static_cast<double>(e_.d);
    for (Index i = 0; i < e_.d * e_.m; ++i) gradient[i] = half * gradient[i] + e_.ridge * W[i];
    return train_risk;
}

void Network::measure(const double* W, double train_risk, bool eigenvalues, double* out) const {
    const Map<const RowMatrix> weights(W, e_.d, e_.m);
    const Map<const RowMatrix> target(S_star_.data(), e_.d, e_.d);
    const RowMatrix S = weights * weights.transpose();
    const double d = static_cast<double>(e_.d);
    out[0] = 2.0 / d * (S - target).squaredNorm();
    out[1] = train_risk;
    out[2] = weights.squaredNorm() / d;
    out[3] = S.cwiseProduct(target).sum() / d;
    if (!eigenvalues) return;
    // Of the smaller of W W^T and W^T W, so that the zeros of the former are exact.
    const Index zeros = std::max<Index>(e_.d - e_.m, 0);
    const MatrixXd gram = zeros > 0 ? MatrixXd(weights.transpose() * weights) : MatrixXd(S);
    std::fill(out + FIELDS, out + FIELDS + zeros, 0.0);
    Map<VectorXd>(out + FIELDS + zeros, e_.d - zeros) =
        Eigen::SelfAdjointEigenSolver<MatrixXd>(gram, Eigen::EigenvaluesOnly)
            .eigenvalues()
            .cwiseMax(0.0);
}

void Network::samples(double* X, double* y) const {
    const Map<const RowMatrix> target(S_star_.data(), e_.d, e_.d);
    const GoeSource source{e_.d, e_.seed, replica_};
    std::vector<double> work(source.stride());
    std::vector<float> packed(source.stride());
    for (Index mu = 0; mu < e_.n; ++mu) {
        Map<RowMatrix> x(X + mu * e_.d * e_.d, e_.d, e_.d);
        if (e_.design == Design::NETWORK) {
            const Map<const VectorXd> input(inputs_.data() + mu * e_.d, e_.d);
            x.noalias() = input * input.transpose();
            x.diagonal().array() -= 1.0 / std::sqrt(static_cast<double>(e_.d));
        } else {
            source.draw(mu, work.data(), packed.data());
            for (Index i = 0, at = 0; i < e_.d; ++i) {
                for (Index j = i; j < e_.d; ++j, ++at) x(i, j) = x(j, i) = packed[at];
            }
        }
        y[mu] = x.cwiseProduct(target).sum() + noise_[mu];
    }
}

std::unique_ptr<Run> descent(std::shared_ptr<const Network> network, std::vector<double> W,
                             std::vector<double> lr, std::vector<Index> steps, bool eigenvalues) {
    return std::make_unique<Descent>(std::move(network), std::move(W), std::move(lr),
                                     std::move(steps), eigenvalues);
}

std::unique_ptr<Run> gradient_flow(std::shared_ptr<const Network> network, std::vector<double> W,
                                   std::vector<double> t, double rtol, double atol, Index max_steps,
                                   bool eigenvalues) {
    return std::make_unique<OdeIntegrator>(std::make_unique<Flow>(std::move(network), eigenvalues),
                                           std::move(W), std::move(t), rtol, atol, OdeMethod::AUTO,
                                           max_steps);
}

}  // namespace overparam::empirical_flow
