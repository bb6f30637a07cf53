#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <pybind11/typing.h>

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/threads.hpp"
#include "bind/array.hpp"
#include "models/empirical_flow.hpp"

namespace py = pybind11;
using namespace overparam;
using bind::allocate;
using bind::Array;
using bind::copy;
using bind::require_shape;
namespace flow = overparam::empirical_flow;

// ---- long times
// ------------------------------------------------------------------------------------

namespace {

flow::TeacherLaw make_teacher(double mean, double second, double ratio, const Array& positions,
                              const Array& weights, const std::vector<double>& interval,
                              double variance) {
    bind::require_shape("weights", weights, {positions.size()});
    flow::TeacherLaw law{mean, second, ratio, copy(positions), copy(weights), {}, variance};
    if (!interval.empty())
        law.interval = {interval.at(0), interval.at(1), interval.at(2), interval.at(3),
                        interval.at(4), interval.at(5), interval.at(6)};
    return law;
}

// A (fields, solutions) array, the number of evaluations and the status.
py::typing::Tuple<Array, Index, Status> as_tuple(const flow::Found& found) {
    const Index n = static_cast<Index>(found.fixed.size());
    Array out = allocate({flow::FIXED_FIELDS, n});
    double* values = out.mutable_data();
    for (Index i = 0; i < n; ++i) {
        const double* fields = &found.fixed[i].alpha;
        for (Index j = 0; j < flow::FIXED_FIELDS; ++j) values[j * n + i] = fields[j];
    }
    return py::make_tuple(out, found.evaluations, found.status);
}

void bind_long_time(py::module_& m) {
    py::class_<flow::TeacherLaw>(m, "TeacherLaw")
        .def(py::init(&make_teacher), py::kw_only(), py::arg("mean"), py::arg("second"),
             py::arg("ratio"), py::arg("positions"), py::arg("weights"), py::arg("interval"),
             py::arg("variance"))
        .def(
            "long_time",
            [](const flow::TeacherLaw& self, double alpha, double kappa, double noise, double lam) {
                py::gil_scoped_release release;
                const flow::Found found = flow::long_time(self, {alpha, kappa, noise, lam});
                py::gil_scoped_acquire acquire;
                return as_tuple(found);
            },
            py::arg("alpha"), py::arg("kappa"), py::arg("noise"), py::arg("lam"))
        .def(
            "curve",
            [](const flow::TeacherLaw& self, double kappa, double noise, double lam,
               const Array& sigma2) {
                const std::vector<double> values = copy(sigma2);
                py::gil_scoped_release release;
                const flow::Found found = flow::curve(self, {0.0, kappa, noise, lam}, values);
                py::gil_scoped_acquire acquire;
                return as_tuple(found);
            },
            py::arg("kappa"), py::arg("noise"), py::arg("lam"), py::arg("sigma2"))
        .def(
            "optimal_ridge",
            [](const flow::TeacherLaw& self, double alpha, double kappa, double noise) {
                return flow::optimal_ridge(self, {alpha, kappa, noise, 0.0});
            },
            py::arg("alpha"), py::arg("kappa"), py::arg("noise"),
            py::call_guard<py::gil_scoped_release>());
    m.def("flow_bayes_risk", &flow::bayes_risk, py::arg("alpha"), py::arg("ratio"),
          py::arg("scale"), py::arg("noise"));
    m.def("flow_recovery_threshold", &flow::recovery_threshold, py::arg("kappa"), py::arg("ratio"));
    m.def("flow_interpolation_threshold", &flow::interpolation_threshold, py::arg("kappa"),
          py::arg("ratio"), py::arg("noise"));
    m.def("flow_saturation_width", &flow::saturation_width, py::arg("ratio"));
}

}  // namespace

// ---- the network itself ------------------------------------------------------------------------

namespace {

flow::Experiment make_experiment(Index dim, Index width, Index samples, const std::string& sensing,
                                 double noise_var, double ridge, double init_scale,
                                 const Array& teacher, Index teacher_width, double teacher_scale,
                                 std::uint64_t seed) {
    flow::Experiment e;
    e.d = dim;
    e.m = width;
    e.n = samples;
    e.design = sensing == "goe" ? flow::Design::GOE : flow::Design::NETWORK;
    e.noise_var = noise_var;
    e.ridge = ridge;
    e.init_scale = init_scale;
    e.teacher = copy(teacher);
    if (!e.teacher.empty()) require_shape("teacher", teacher, {dim});
    e.teacher_width = teacher_width;
    e.teacher_scale = teacher_scale;
    e.seed = seed;
    return e;
}

Array square(const std::vector<double>& values, Index d) {
    Array out = allocate({d, d});
    std::copy(values.begin(), values.end(), out.mutable_data());
    return out;
}

void bind_network(py::module_& m) {
    py::class_<flow::Experiment>(m, "Experiment")
        .def(py::init(&make_experiment), py::kw_only(), py::arg("dim"), py::arg("width"),
             py::arg("samples"), py::arg("sensing"), py::arg("noise_var"), py::arg("ridge"),
             py::arg("init_scale"), py::arg("teacher"), py::arg("teacher_width"),
             py::arg("teacher_scale"), py::arg("seed"));

    py::class_<flow::Network, std::shared_ptr<flow::Network>>(m, "Network")
        .def(py::init<const flow::Experiment&, std::uint64_t, int>(), py::arg("experiment"),
             py::arg("replica"), py::arg("threads"), py::call_guard<py::gil_scoped_release>())
        .def_property_readonly(
            "teacher", [](const flow::Network& self) { return square(self.teacher(), self.d()); })
        .def(
            "start",
            [](const flow::Network& self, std::uint64_t attempt) {
                const std::vector<double> W = self.start(attempt);
                Array out = allocate({self.d(), self.m()});
                std::copy(W.begin(), W.end(), out.mutable_data());
                return out;
            },
            py::arg("attempt"))
        .def(
            "loss_gradient",
            [](const flow::Network& self, const Array& W) {
                require_shape("W", W, {self.d(), self.m()});
                Array out = allocate({self.d(), self.m()});
                double* gradient = out.mutable_data();
                const double* w = W.data();
                double train_risk;
                {
                    py::gil_scoped_release release;
                    train_risk = self.loss_gradient(w, gradient);
                }
                return py::typing::Tuple<double, Array>(py::make_tuple(train_risk, out));
            },
            py::arg("W"))
        .def(
            "measure",
            [](const flow::Network& self, const Array& W, double train_risk) {
                require_shape("W", W, {self.d(), self.m()});
                Array out = allocate({flow::FIELDS + self.d()});
                self.measure(W.data(), train_risk, true, out.mutable_data());
                return out;
            },
            py::arg("W"), py::arg("train_risk"))
        .def("samples",
             [](const flow::Network& self) {
                 const Index n = static_cast<Index>(self.noise().size());
                 Array X = allocate({n, self.d(), self.d()}), y = allocate({n});
                 self.samples(X.mutable_data(), y.mutable_data());
                 return py::typing::Tuple<Array, Array>(py::make_tuple(X, y));
             })
        .def(
            "descent",
            [](const std::shared_ptr<flow::Network>& self, const Array& W, const Array& lr,
               std::vector<Index> steps, bool eigenvalues) {
                require_shape("W", W, {self->d(), self->m()});
                return flow::descent(self, copy(W), copy(lr), std::move(steps), eigenvalues);
            },
            py::arg("W"), py::arg("lr"), py::arg("steps"), py::arg("eigenvalues"))
        .def(
            "flow",
            [](const std::shared_ptr<flow::Network>& self, const Array& W, const Array& t,
               double rtol, double atol, Index max_steps, bool eigenvalues) {
                require_shape("W", W, {self->d(), self->m()});
                return flow::gradient_flow(self, copy(W), copy(t), rtol, atol, max_steps,
                                           eigenvalues);
            },
            py::arg("W"), py::arg("t"), py::arg("rtol"), py::arg("atol"), py::arg("max_steps"),
            py::arg("eigenvalues"));

    // Advances each of the runs by about `evaluations`; says which have no more to do.
    m.def(
        "advance_runs",
        [](const std::vector<Run*>& runs, Index evaluations, int threads) {
            std::vector<char> done(runs.size());
            {
                py::gil_scoped_release release;
                parallel_for(static_cast<Index>(runs.size()), threads,
                             [&](Index i) { done[i] = runs[i]->advance(evaluations); });
            }
            return std::vector<bool>(done.begin(), done.end());
        },
        py::arg("runs"), py::arg("evaluations"), py::arg("threads"));
}

}  // namespace

void bind_empirical_flow(py::module_& m) {
    bind_long_time(m);
    bind_network(m);
}
