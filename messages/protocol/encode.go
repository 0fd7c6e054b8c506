package protocol

import (
	"encoding/json"
	"math"
)

// MarshalJSON omits scores, metrics and analyzer values that are not finite or cannot be
// encoded. Otherwise a single NaN would make it impossible to send the result.
func (r JobResult) MarshalJSON() ([]byte, error) {
	for _, score := range []**float64{&r.QoEScore, &r.EfficiencyScore, &r.EnergyJoules, &r.VMAFScore} {
		if *score != nil && !finite(**score) {
			*score = nil
		}
	}
	r.Metrics = encodableMap(r.Metrics)
	r.AnalyzerOutput = encodableMap(r.AnalyzerOutput)
	type plain JobResult // without this method
	return json.Marshal(plain(r))
}

// encodableMap returns a copy of m without values that JSON cannot represent, including
// those nested in maps and slices. nil stays nil.
func encodableMap(m map[string]any) map[string]any {
	if m == nil {
		return nil
	}
	kept := make(map[string]any, len(m))
	for key, value := range m {
		if value, ok := encodable(value); ok {
			kept[key] = value
		}
	}
	return kept
}

func encodable(value any) (any, bool) {
	switch v := value.(type) {
	case float64:
		return v, finite(v)
	case float32:
		return v, finite(float64(v))
	case nil, bool, string, int, int64, uint64:
		return v, true
	case map[string]any:
		return encodableMap(v), true
	case []any:
		kept := make([]any, len(v)) // an omitted element becomes null, so that the others keep their index
		for i := range v {
			if element, ok := encodable(v[i]); ok {
				kept[i] = element
			}
		}
		return kept, true
	}
	raw, err := json.Marshal(value)
	return json.RawMessage(raw), err == nil
}

func finite(f float64) bool { return !math.IsNaN(f) && !math.IsInf(f, 0) }
