package hardware

import (
	"strings"
	"testing"
)

// Lines of a child, as responses to request 7, which was sent at 1000.
func TestParseResponse(t *testing.T) {
	const rest = `,"energy_mj":5,"power_mw":70000}`
	for name, test := range map[string]struct{ line, want string }{
		"valid":                       {`{"id":7,"cards":[{"uuid":"a","at_ns":1500` + rest + `]}`, ""},
		"valid with details":          {`{"id":7,"cards":[{"uuid":"a","at_ns":1500,"details":{"uuid":"a","index":3,"use_percent":100},"processes":{"9":{"sm_ns":5}}}]}`, ""},
		"valid fault":                 {`{"id":7,"stale":true,"cards":[{"uuid":"a","at_ns":0,"fault":"lost"}]}`, ""},
		"failure":                     {`{"id":7,"failure":{"missing":true,"reason":"no"}}`, ""},
		"empty":                       {``, "malformed"},
		"log line":                    {`NVML: warning`, "malformed"},
		"truncated":                   {`{"id":7,"cards":[{"uuid":"a","at_ns":1500`, "malformed"},
		"two responses":               {`{"id":7}{"id":7}`, "malformed"},
		"string for a number":         {`{"id":"7"}`, "malformed"},
		"negative energy":             {`{"id":7,"cards":[{"uuid":"a","at_ns":1500,"energy_mj":-1}]}`, "malformed"},
		"fractional power":            {`{"id":7,"cards":[{"uuid":"a","at_ns":1500,"power_mw":0.5}]}`, "malformed"},
		"response to another request": {`{"id":6,"cards":[{"uuid":"a","at_ns":1500` + rest + `]}`, "request 6, want 7"},
		"no cards":                    {`{"id":7}`, "0 cards"},
		"repeated card":               {`{"id":7,"cards":[{"uuid":"a","at_ns":1500` + rest + `,{"uuid":"a","at_ns":1500` + rest + `]}`, "repeated UUID"},
		"card without UUID":           {`{"id":7,"cards":[{"at_ns":1500` + rest + `]}`, "empty, long or repeated UUID"},
		"long UUID":                   {`{"id":7,"cards":[{"uuid":"` + strings.Repeat("a", 1000) + `","at_ns":1500` + rest + `]}`, "empty, long or repeated UUID"},
		"too many cards":              {`{"id":7,"cards":[` + strings.Repeat(`{},`, 64) + `{}]}`, "65 cards"},
		"read before the request":     {`{"id":7,"cards":[{"uuid":"a","at_ns":999` + rest + `]}`, "outside the request"},
		"read in the future":          {`{"id":7,"cards":[{"uuid":"a","at_ns":2001` + rest + `]}`, "outside the request"},
		"energy overflow":             {`{"id":7,"cards":[{"uuid":"a","at_ns":1500,"energy_mj":18446744073709551615}]}`, "energy of"},
		"implausible power":           {`{"id":7,"cards":[{"uuid":"a","at_ns":1500,"power_mw":4294967295}]}`, "power of"},
		"implausible instant power":   {`{"id":7,"cards":[{"uuid":"a","at_ns":1500,"instant_mw":4294967295}]}`, "power of"},
		"implausible limit":           {`{"id":7,"cards":[{"uuid":"a","at_ns":1500,"max_power_mw":4294967295}]}`, "power of"},
		"details of another card":     {`{"id":7,"cards":[{"uuid":"a","at_ns":1500,"details":{"uuid":"b"}}]}`, "details of"},
		"negative index":              {`{"id":7,"cards":[{"uuid":"a","at_ns":1500,"details":{"uuid":"a","index":-1}}]}`, "details of"},
		"implausible utilization":     {`{"id":7,"cards":[{"uuid":"a","at_ns":1500,"details":{"uuid":"a","encoder_use_percent":101}}]}`, "utilization of"},
		"invalid PID":                 {`{"id":7,"cards":[{"uuid":"a","at_ns":1500,"details":{"uuid":"a"},"processes":{"0":{}}}]}`, "process 0"},
		"negative process time":       {`{"id":7,"cards":[{"uuid":"a","at_ns":1500,"details":{"uuid":"a"},"processes":{"9":{"sm_ns":-5}}}]}`, "process 9"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parseResponse([]byte(test.line), 7, 1000, 2000)
			if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
				t.Errorf("got error %v, want %q", err, test.want)
			}
		})
	}
}

// A response that is accepted has only plausible values.
func FuzzParseResponse(f *testing.F) {
	f.Add([]byte(`{"id":7,"cards":[{"uuid":"a","at_ns":1500,"energy_mj":5,"power_mw":70000,"details":{"uuid":"a","throttle_reasons":[]},"processes":{}}]}`))
	f.Add([]byte(`{"id":7,"failure":{"missing":true,"reason":"no"}}`))
	f.Add([]byte("[\r\x05"))
	f.Add([]byte("0E000000"))
	f.Add([]byte("\"\xad00\xad\xad\""))
	f.Fuzz(func(t *testing.T, line []byte) {
		response, err := parseResponse(line, 7, 1000, 2000)
		if err != nil || response.Failure != nil {
			return
		}
		n := &NVML{reader: &nvmlReader{}}
		readings, _ := n.update(response)
		for _, r := range readings {
			if r.Counter < 0 || r.Zone == nil || r.At.IsZero() {
				t.Errorf("%s: got reading %+v", line, r)
			}
		}
	})
}
