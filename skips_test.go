//go:build linux && vmlab

package cdblab

import "cdblab/helpers/lab"

// maySkip lists what a run with CDB_REQUIRE=all may skip, because the machines of CI cannot show it.
var maySkip = []lab.MaySkip{}
