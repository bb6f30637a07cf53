#include <pybind11/pybind11.h>

#include <algorithm>
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

flow::TeacherLaw make_teacher(double ratio, double scale, const Array& positions,
                              const Array& weights, double variance) {
    bind::require_shape("weights", weights, {positions.size()});
    return {ratio, scale, copy(positions), copy(weights), variance};
}

// (fields, solutions) array, number of evaluations and status.
py::tuple as_tuple(const flow::Found& found) {
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
        .def(py::init(&make_teacher), py::kw_only(), py::arg("ratio"), py::arg("scale"),
             py::arg("positions"), py::arg("weights"), py::arg("variance"))
        .def(
            "long_time",
            [](const flow::TeacherLaw& self, double alpha, double kappa, double noise, double lam) {
                flow::Found found;
                {
                    py::gil_scoped_release release;
                    found = flow::long_time(self, {alpha, kappa, noise, lam});
                }
                return as_tuple(found);
            },
            py::arg("alpha"), py::arg("kappa"), py::arg("noise"), py::arg("lam"));
    m.def("flow_recovery_threshold", &flow::recovery_threshold, py::arg("kappa"), py::arg("ratio"));
    m.def("flow_interpolation_threshold", &flow::interpolation_threshold, py::arg("kappa"),
          py::arg("ratio"), py::arg("noise"));
    m.def("flow_saturation_width", &flow::saturation_width, py::arg("ratio"));
}

}  // namespace

// ---- the network itself
// ----------------------------------------------------------------------------

void bind_empirical_flow(py::module_& m) { bind_long_time(m); }
