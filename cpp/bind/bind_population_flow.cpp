#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <pybind11/typing.h>

#include <memory>
#include <string>
#include <vector>

#include "bind/array.hpp"
#include "models/population_flow.hpp"
#include "networks/quadratic.hpp"

namespace py = pybind11;
using namespace overparam;
using bind::allocate;
using bind::Array;
using bind::copy;
using bind::InOut;
using bind::require_shape;
namespace flow = overparam::population_flow;

namespace {

flow::Model make_model(const Array& mu, Index width, double kappa, double lam) {
    flow::Model m;
    m.mu = copy(mu);
    m.m = width;
    m.kappa = kappa;
    m.lam = lam;
    return m;
}

flow::Numerics make_numerics(const Array& t, double rtol, double atol, Index max_steps) {
    return {copy(t), rtol, atol, max_steps};
}

flow::Start start_named(const std::string& name) {
    if (name == "gaussian") return flow::Start::GAUSSIAN;
    if (name == "orthonormal") return flow::Start::ORTHONORMAL;
    throw ArgumentError("init", "one of gaussian, orthonormal", name);
}

flow::Method method_named(const std::string& name) {
    if (name == "reduced") return flow::Method::REDUCED;
    if (name == "orthonormal") return flow::Method::ORTHONORMAL;
    if (name == "restart") return flow::Method::RESTART;
    if (name == "direct") return flow::Method::DIRECT;
    if (name == "ode") return flow::Method::WEIGHTS;
    throw ArgumentError("method", "one of direct, restart, reduced, orthonormal, ode", name);
}

std::unique_ptr<Run> run(const flow::Model& m, const std::string& name, const Array& W0,
                         const flow::Numerics& numerics, double limit, bool keep) {
    require_shape("W0", W0, {m.d(), m.m});
    const double* W = W0.data();
    const flow::Method method = method_named(name);
    py::gil_scoped_release release;
    switch (method) {
        case flow::Method::REDUCED:
            return flow::reduced(m, W, numerics, keep);
        case flow::Method::RESTART:
            return flow::restart(m, W, numerics, limit, keep);
        case flow::Method::DIRECT:
            return flow::direct(m, W, numerics, keep);
        case flow::Method::WEIGHTS:
            return flow::weights(m, W, numerics, keep);
        case flow::Method::ORTHONORMAL:
            break;
    }
    throw ArgumentError("method", "one for given weights", name);
}

}  // namespace

void bind_population_flow(py::module_& m) {
    py::class_<flow::Numerics>(m, "FlowNumerics")
        .def(py::init(&make_numerics), py::kw_only(), py::arg("t"), py::arg("rtol"),
             py::arg("atol"), py::arg("max_steps"));

    py::class_<flow::Model>(m, "FlowModel")
        .def(py::init(&make_model), py::kw_only(), py::arg("mu"), py::arg("width"),
             py::arg("kappa"), py::arg("lam"))
        .def("run", &run, py::arg("method"), py::arg("W0"), py::arg("numerics"), py::arg("limit"),
             py::arg("keep"))
        .def(
            "condition",
            [](const flow::Model& self, const Array& W0) {
                require_shape("W0", W0, {self.d(), self.m});
                return flow::condition(self, W0.data());
            },
            py::arg("W0"))
        .def(
            "signed_run",
            [](const flow::Model& self, const Array& W_plus, const Array& W_minus,
               const flow::Numerics& numerics) {
                require_shape("W_plus", W_plus, {self.d(), self.m});
                require_shape("W_minus", W_minus, {self.d(), W_minus.shape(1)});
                return flow::signed_weights(self, W_minus.shape(1), W_plus.data(), W_minus.data(),
                                            numerics);
            },
            py::arg("W_plus"), py::arg("W_minus"), py::arg("numerics"))
        .def(
            "descend",
            [](const flow::Model& self, double rate, InOut W, Index steps) {
                require_shape("W", W, {self.d(), self.m});
                double* w = W.mutable_data();
                py::gil_scoped_release release;
                return flow::descend(self, rate, w, steps);
            },
            py::arg("rate"), py::arg("W").noconvert(), py::arg("steps"))
        .def(
            "measure",
            [](const flow::Model& self, const Array& W) {
                require_shape("W", W, {self.d(), self.m});
                Array out = allocate({flow::FIELDS});
                double* fields = out.mutable_data();
                const double* w = W.data();
                py::gil_scoped_release release;
                flow::measure(self, w, fields);
                return out;
            },
            py::arg("W"))
        .def(
            "simulate",
            [](const flow::Model& self, const std::string& init, double trace,
               const std::string& method, double limit, const flow::Numerics& numerics,
               std::uint64_t seed, Index first, Index count, int threads) {
                Array out = allocate({count, static_cast<Index>(numerics.t.size()), flow::FIELDS});
                double* values = out.mutable_data();
                const flow::Start start = start_named(init);
                const flow::Method chosen = method_named(method);
                py::gil_scoped_release release;
                flow::simulate(self, start, trace, chosen, limit, numerics, seed, first, count,
                               threads, values);
                return out;
            },
            py::arg("init"), py::arg("trace"), py::arg("method"), py::arg("limit"),
            py::arg("numerics"), py::arg("seed"), py::arg("first"), py::arg("count"),
            py::arg("threads"));

    m.def(
        "flow_start",
        [](Index dim, Index width, const std::string& init, double trace, std::uint64_t seed,
           std::uint64_t replica) {
            Array W = allocate({dim, width});
            flow::random_start(dim, width, start_named(init), trace, seed, replica,
                               W.mutable_data());
            return W;
        },
        py::arg("dim"), py::arg("width"), py::arg("init"), py::arg("trace"), py::arg("seed"),
        py::arg("replica"));

    m.def(
        "flow_orthonormal",
        [](const Array& cosines2, const Array& counts, double rank, double kappa, double lam,
           double s0, const flow::Numerics& numerics) {
            require_shape("counts", counts, {cosines2.size()});
            return flow::orthonormal(copy(cosines2), copy(counts), rank, kappa, lam, s0, numerics);
        },
        py::arg("cosines2"), py::arg("counts"), py::arg("rank"), py::arg("kappa"), py::arg("lam"),
        py::arg("s0"), py::arg("numerics"));

    m.def(
        "flow_limit",
        [](const Array& student, const Array& student_weights, const Array& teacher,
           const Array& teacher_weights, double kappa_d, double lam,
           const flow::Numerics& numerics) {
            require_shape("student_weights", student_weights, {student.size()});
            require_shape("teacher_weights", teacher_weights, {teacher.size()});
            return flow::limit({copy(student), copy(student_weights)},
                               {copy(teacher), copy(teacher_weights)}, kappa_d, lam, numerics);
        },
        py::arg("student"), py::arg("student_weights"), py::arg("teacher"),
        py::arg("teacher_weights"), py::arg("kappa_d"), py::arg("lam"), py::arg("numerics"));

    // Loss (1/n) sum r^2 and (1/n) X^T diag(r) X W of a quadratic network on samples.
    m.def(
        "quadratic_loss_gradient",
        [](const Array& X, const Array& y, const Array& W, int threads) {
            const Index n = X.shape(0), d = X.shape(1), width = W.shape(1);
            require_shape("y", y, {n});
            require_shape("W", W, {d, width});
            Array out = allocate({d, width});
            double* gradient = out.mutable_data();
            double loss;
            {
                py::gil_scoped_release release;
                loss = QuadraticSamples(X.data(), y.data(), n, d)
                           .loss_gradient(W.data(), width, threads, gradient);
            }
            return py::typing::Tuple<double, Array>(py::make_tuple(loss, out));
        },
        py::arg("X"), py::arg("y"), py::arg("W"), py::arg("threads"));

    m.def(
        "quadratic_descend",
        [](const Array& X, const Array& y, InOut W, double rate, double ridge, Index steps,
           int threads) {
            const Index n = X.shape(0), d = X.shape(1), width = W.shape(1);
            require_shape("y", y, {n});
            require_shape("W", W, {d, width});
            double* w = W.mutable_data();
            py::gil_scoped_release release;
            return QuadraticSamples(X.data(), y.data(), n, d)
                .descend(w, width, rate, ridge, steps, threads);
        },
        py::arg("X"), py::arg("y"), py::arg("W").noconvert(), py::arg("rate"), py::arg("ridge"),
        py::arg("steps"), py::arg("threads"));
}
