#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <pybind11/typing.h>

#include <memory>
#include <string>
#include <vector>

#include "bind/array.hpp"
#include "bind/ode.hpp"
#include "math/ode.hpp"
#include "models/sgd.hpp"

namespace py = pybind11;
using namespace overparam;
using bind::allocate;
using bind::Array;
using bind::copy;
using bind::InOut;
using bind::require_shape;

namespace {

Activation activation_named(const std::string& name) {
    if (name == "quadratic") return Activation::QUADRATIC;
    if (name == "erf") return Activation::ERF;
    if (name == "relu") return Activation::RELU;
    throw ArgumentError("activation", "one of quadratic, erf, relu", name);
}

sgd::Model make_model(const std::string& activation, const Array& a, const Array& a_star,
                      const Array& P, double offset, double lr, double noise_var, Index batch,
                      bool spherical, double second_layer_lr) {
    sgd::Model m;
    m.activation = activation_named(activation);
    m.p = a.size();
    m.ps = a_star.size();
    require_shape("P", P, {m.ps, m.ps});
    m.a = copy(a);
    m.a_star = copy(a_star);
    m.P = copy(P);
    m.offset = offset;
    m.lr = lr;
    m.noise_var = noise_var;
    m.batch = batch;
    m.spherical = spherical;
    m.second_layer_lr = second_layer_lr;
    return m;
}

void require_overlaps(const sgd::Model& m, const Array& Q, const Array& M) {
    require_shape("Q", Q, {m.p, m.p});
    require_shape("M", M, {m.p, m.ps});
}

// A trajectory of points (count, ...) with the risk of each.
Array risks(const sgd::Model& m, const Array& Q, const Array& M, const Array& a) {
    const Index count = Q.shape(0);
    require_shape("Q", Q, {count, m.p, m.p});
    require_shape("M", M, {count, m.p, m.ps});
    require_shape("a", a, {count, m.p});
    Array out = allocate({count});
    double* r = out.mutable_data();
    {
        py::gil_scoped_release release;
        for (Index i = 0; i < count; ++i) {
            r[i] = sgd::risk(m, Q.data() + i * m.p * m.p, M.data() + i * m.p * m.ps,
                             a.data() + i * m.p);
        }
    }
    return out;
}

Array frame_risks(const sgd::Model& m, const Array& Lstar, const Array& Bm, const Array& Qperp,
                  const Array& a) {
    const Index count = Bm.shape(0);
    require_shape("Lstar", Lstar, {m.ps, m.ps});
    require_shape("Bm", Bm, {count, m.p, m.ps});
    require_shape("Qperp", Qperp, {count, m.p, m.p});
    require_shape("a", a, {count, m.p});
    Array out = allocate({count});
    double* r = out.mutable_data();
    {
        py::gil_scoped_release release;
        for (Index i = 0; i < count; ++i) {
            r[i] = sgd::risk_in_frame(m, Lstar.data(), Bm.data() + i * m.p * m.ps,
                                      Qperp.data() + i * m.p * m.p, a.data() + i * m.p);
        }
    }
    return out;
}

py::typing::Tuple<Array, Array, Array> drift(const sgd::Model& m, const Array& Q, const Array& M,
                                             bool noise) {
    require_overlaps(m, Q, M);
    Array dQ = allocate({m.p, m.p}), dM = allocate({m.p, m.ps}), da = allocate({m.p});
    sgd::drift(m, noise, Q.data(), M.data(), m.a.data(), dQ.mutable_data(), dM.mutable_data(),
               da.mutable_data());
    return py::make_tuple(dQ, dM, da);
}

py::typing::Tuple<Array, Array> mean_step(const sgd::Model& m, double dim, const Array& Q,
                                          const Array& M) {
    require_overlaps(m, Q, M);
    Array next_Q = allocate({m.p, m.p}), next_M = allocate({m.p, m.ps});
    sgd::mean_step(m, dim, Q.data(), M.data(), next_Q.mutable_data(), next_M.mutable_data());
    return py::make_tuple(next_Q, next_M);
}

Array increment_covariance(const sgd::Model& m, const Array& Q, const Array& M) {
    require_overlaps(m, Q, M);
    const Index n = m.p * (m.p + m.ps);
    Array out = allocate({n, n});
    sgd::increment_covariance(m, Q.data(), M.data(), out.mutable_data());
    return out;
}

std::unique_ptr<Run> integrator(std::unique_ptr<OdeSystem> system, const Array& start,
                                const Array& t, double rtol, double atol, const std::string& method,
                                Index max_steps) {
    require_shape("start", start, {system->size()});
    return std::make_unique<OdeIntegrator>(std::move(system), copy(start), copy(t), rtol, atol,
                                           bind::ode_method(method), max_steps);
}

void chain_advance(const sgd::Model& m, double dim, const Array& Lstar, const Array& norms,
                   InOut Bm, InOut Qperp, InOut a, std::uint64_t seed, std::uint64_t step,
                   Index steps, int threads) {
    const Index replicas = Bm.shape(0);
    require_shape("Lstar", Lstar, {m.ps, m.ps});
    require_shape("norms", norms, {replicas, m.p});
    require_shape("Bm", Bm, {replicas, m.p, m.ps});
    require_shape("Qperp", Qperp, {replicas, m.p, m.p});
    require_shape("a", a, {replicas, m.p});
    const sgd::ChainState state{Bm.mutable_data(), Qperp.mutable_data(), a.mutable_data()};
    py::gil_scoped_release release;
    sgd::chain_advance(m, dim, Lstar.data(), norms.data(), state, replicas, seed, step, steps,
                       threads);
}

void direct_advance(const sgd::Model& m, Index dim, const Array& W_star, const Array& norms,
                    InOut W, InOut a, std::uint64_t seed, std::uint64_t step, Index steps,
                    int threads) {
    const Index replicas = W.shape(0), stride = sgd::padded(dim);
    require_shape("W_star", W_star, {m.ps, stride});
    require_shape("norms", norms, {replicas, m.p});
    require_shape("W", W, {replicas, m.p, stride});
    require_shape("a", a, {replicas, m.p});
    double *w = W.mutable_data(), *second = a.mutable_data();
    py::gil_scoped_release release;
    sgd::direct_advance(m, dim, W_star.data(), norms.data(), w, second, replicas, seed, step, steps,
                        threads);
}

}  // namespace

void bind_sgd(py::module_& m) {
    py::class_<sgd::Model>(m, "SgdModel")
        .def(py::init(&make_model), py::kw_only(), py::arg("activation"), py::arg("a"),
             py::arg("a_star"), py::arg("P"), py::arg("offset"), py::arg("lr"),
             py::arg("noise_var"), py::arg("batch"), py::arg("spherical"),
             py::arg("second_layer_lr"))
        .def("risks", &risks, py::arg("Q"), py::arg("M"), py::arg("a"))
        .def("frame_risks", &frame_risks, py::arg("Lstar"), py::arg("Bm"), py::arg("Qperp"),
             py::arg("a"))
        .def("drift", &drift, py::arg("Q"), py::arg("M"), py::arg("noise"))
        .def("mean_step", &mean_step, py::arg("dim"), py::arg("Q"), py::arg("M"))
        .def("increment_covariance", &increment_covariance, py::arg("Q"), py::arg("M"))
        .def(
            "overlap_equations",
            [](const sgd::Model& self, bool noise, const Array& start, const Array& t, double rtol,
               double atol, const std::string& method, Index max_steps) {
                return integrator(sgd::overlap_equations(self, noise), start, t, rtol, atol, method,
                                  max_steps);
            },
            py::arg("noise"), py::arg("start"), py::arg("t"), py::arg("rtol"), py::arg("atol"),
            py::arg("method"), py::arg("max_steps"))
        .def(
            "mode_equations",
            [](const sgd::Model& self, bool noise, const Array& start, const Array& t, double rtol,
               double atol, const std::string& method, Index max_steps) {
                return integrator(sgd::mode_equations(self, noise), start, t, rtol, atol, method,
                                  max_steps);
            },
            py::arg("noise"), py::arg("start"), py::arg("t"), py::arg("rtol"), py::arg("atol"),
            py::arg("method"), py::arg("max_steps"))
        .def(
            "riccati_equations",
            [](const sgd::Model& self, const Array& sigma, const Array& X, const Array& Y,
               const Array& start, const Array& t, double rtol, double atol, Index max_steps) {
                require_shape("sigma", sigma, {self.ps});
                require_shape("X", X, {self.p, self.ps});
                require_shape("Y", Y, {self.p, self.p});
                return integrator(sgd::riccati_equations(self, copy(sigma), copy(X), copy(Y)),
                                  start, t, rtol, atol, "dop853", max_steps);
            },
            py::arg("sigma"), py::arg("X"), py::arg("Y"), py::arg("start"), py::arg("t"),
            py::arg("rtol"), py::arg("atol"), py::arg("max_steps"))
        .def(
            "fluctuation_equations",
            [](const sgd::Model& self, const Array& start, const Array& t, double rtol, double atol,
               Index max_steps) {
                return integrator(sgd::fluctuation_equations(self), start, t, rtol, atol, "dop853",
                                  max_steps);
            },
            py::arg("start"), py::arg("t"), py::arg("rtol"), py::arg("atol"), py::arg("max_steps"))
        .def("chain_advance", &chain_advance, py::arg("dim"), py::arg("Lstar"), py::arg("norms"),
             py::arg("Bm").noconvert(), py::arg("Qperp").noconvert(), py::arg("a").noconvert(),
             py::arg("seed"), py::arg("step"), py::arg("steps"), py::arg("threads"))
        .def("direct_advance", &direct_advance, py::arg("dim"), py::arg("W_star"), py::arg("norms"),
             py::arg("W").noconvert(), py::arg("a").noconvert(), py::arg("seed"), py::arg("step"),
             py::arg("steps"), py::arg("threads"));
    m.def("sgd_padded", &sgd::padded, py::arg("dim"));
}
