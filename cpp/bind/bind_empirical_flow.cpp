#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <pybind11/typing.h>

#include <vector>

#include "bind/array.hpp"
#include "models/empirical_flow.hpp"

namespace py = pybind11;
using namespace overparam;
using bind::allocate;
using bind::Array;
using bind::copy;
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

// ---- the network itself
// ----------------------------------------------------------------------------

void bind_empirical_flow(py::module_& m) { bind_long_time(m); }
