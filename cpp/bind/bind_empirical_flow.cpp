#include <pybind11/pybind11.h>

#include "models/empirical_flow.hpp"

namespace py = pybind11;
namespace flow = overparam::empirical_flow;

// ---- long times ------------------------------------------------------------------------------------

// ---- the network itself ----------------------------------------------------------------------------

void bind_empirical_flow(py::module_& m) { (void)m; }
