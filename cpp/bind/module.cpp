// The extension module: one bind_<topic>.cpp per topic, and the table from C++ to Python
// exceptions.
#include <pybind11/pybind11.h>

#include "base/errors.hpp"

namespace py = pybind11;

void bind_base(py::module_& m);
void bind_empirical_flow(py::module_& m);
void bind_giant_step(py::module_& m);
void bind_giant_step_simulate(py::module_& m);
void bind_hessian(py::module_& m);
void bind_population_flow(py::module_& m);
void bind_random_features(py::module_& m);
void bind_sgd(py::module_& m);

PYBIND11_MODULE(_core, m) {
    m.doc() = "Compiled core of overparam. Private: its interface changes without notice.";
    py::register_exception_translator([](std::exception_ptr error) {
        try {
            if (error) std::rethrow_exception(error);
        } catch (const overparam::ArgumentError& e) {
            PyErr_SetString(PyExc_ValueError, e.what());
        }
    });
    bind_base(m);
    bind_empirical_flow(m);
    bind_giant_step(m);
    bind_giant_step_simulate(m);
    bind_hessian(m);
    bind_population_flow(m);
    bind_random_features(m);
    bind_sgd(m);
}
