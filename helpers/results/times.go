package results

import (
	"encoding/json"
	"io"
	"os"
	"path/filepath"
)

// timesFile is the file in the directory for all runs that says how long each question took: kind of run → test → seconds. A run
// in a VM takes ten times as long as one without, so each kind has its own.
const timesFile = "times.json"

// Times returns how long each question took when it was last asked on this machine, in seconds, by the name of its test. The kind
// is any text that tells apart where the questions are asked. A file that is missing or damaged counts as an empty one.
func Times(all, kind string) map[string]float64 {
	times := readTimes(all)[kind]
	if times == nil {
		times = map[string]float64{}
	}
	return times
}

func readTimes(all string) map[string]map[string]float64 {
	times := map[string]map[string]float64{}
	if data, err := os.ReadFile(filepath.Join(all, timesFile)); err == nil {
		_ = json.Unmarshal(data, &times)
	}
	return times
}

// SaveTimes notes how long the questions of a run took.
func SaveTimes(all, kind string, run *Run) error {
	times := readTimes(all)
	of := times[kind]
	if of == nil {
		of = map[string]float64{}
		times[kind] = of
	}
	for _, q := range run.Asked() {
		if q.Verdict == Answered || q.Verdict == Failed {
			of[q.Test] = q.Elapsed.Seconds()
		}
	}
	return ReplaceFile(filepath.Join(all, timesFile), func(w io.Writer) error {
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", " ")
		return encoder.Encode(times)
	})
}
