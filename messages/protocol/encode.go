package protocol

import (
	"encoding/json"
	"math"
)

// MarshalJSON writes a result that a master can take whatever was measured: a
// score, metric or analysis that is not finite, or cannot be written at all, is
// absent. A single NaN would otherwise cost the whole result.
func (r JobResult) MarshalJSON() ([]byte, error) {
	for _, score := range []**float64{&r.QoEScore, &r.EfficiencyScore, &r.EnergyJoules, &r.VMAFScore} {
		if *score != nil && !finite(**score) {
			*score = nil
		}
	}
	r.Metrics = Writable(r.Metrics)
	r.AnalyzerOutput = Writable(r.AnalyzerOutput)
	type plain JobResult // without this method
	return json.Marshal(plain(r))
}

// Writable returns a copy of m without the numbers that JSON cannot express (NaN
// and the infinities, also inside maps and lists of any) and without values of
// other types that cannot be encoded. m itself stays as it is; nil stays nil.
func Writable(m map[string]any) map[string]any {
	if m == nil {
		return nil
	}
	kept := make(map[string]any, len(m))
	for key, value := range m {
		if value, ok := writable(value); ok {
			kept[key] = value
		}
	}
	return kept
}

func writable(value any) (any, bool) {
	switch v := value.(type) {
	case float64:
		return v, finite(v)
	case float32:
		return v, finite(float64(v))
	case nil, bool, string, int, int64, uint64:
		return v, true
	case map[string]any:
		return Writable(v), true
	case []any:
		kept := make([]any, len(v)) // an element's place has a meaning: null keeps it
		for i := range v {
			if element, ok := writable(v[i]); ok {
				kept[i] = element
			}
		}
		return kept, true
	}
	raw, err := json.Marshal(value)
	return json.RawMessage(raw), err == nil
}

func finite(f float64) bool { return !math.IsNaN(f) && !math.IsInf(f, 0) }
