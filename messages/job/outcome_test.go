package job

import (
	"encoding/json"
	"testing"
	"time"

	"ffmpeg-agent/hardware/energy"
	"ffmpeg-agent/messages/protocol"
)

// sentResult is what a master decodes.
type sentResult struct {
	EnergyJoules *float64       `json:"energy_joules"`
	Metrics      map[string]any `json:"metrics"`
}

func sentBody(t *testing.T, o Outcome) (r sentResult) {
	t.Helper()
	o.Lease = Lease{Job: protocol.Job{ID: "job-1"}, NodeID: "node-1"}
	body, err := o.Body()
	if err == nil {
		err = json.Unmarshal(body, &r)
	}
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestResultNamesTheSourceOfItsJoules(t *testing.T) {
	joules := energy.Joules(12.5)
	unknown := energy.UnknownAccount(time.Unix(0, 0), time.Unix(1, 0), "no sensor")
	for source, account := range map[energy.Source]*energy.Account{
		energy.Measured:    {Breakdown: energy.Breakdown{Total: energy.Figure{Energy: &joules, Source: energy.Measured, CoveragePercent: 100}}},
		energy.Estimated:   {Breakdown: energy.Breakdown{Total: energy.Figure{Energy: &joules, Source: energy.Estimated, CoveragePercent: 100}}},
		energy.Unavailable: &unknown,
		"":                 nil, // FFmpeg never ran
	} {
		r := sentBody(t, Outcome{Energy: account})
		if got, _ := r.Metrics["energy_source"].(string); got != string(source) {
			t.Errorf("metrics.energy_source is %q, want %q", got, source)
		}
		if known := account != nil && account.Total.Energy != nil; known != (r.EnergyJoules != nil) || known && *r.EnergyJoules != 12.5 {
			t.Errorf("%s: energy_joules is %v", source, r.EnergyJoules)
		}
	}
}

func TestResultNamesTheEncoder(t *testing.T) {
	if r := sentBody(t, Outcome{Encode: Encode{Codec: "h264", Encoder: "h264_nvenc"}}); r.Metrics["encoder"] != "h264_nvenc" {
		t.Errorf("metrics.encoder is %v, want h264_nvenc", r.Metrics["encoder"])
	}
}

func TestFetchJoulesAreReportedApart(t *testing.T) {
	known := func(joules energy.Joules) *energy.Account {
		return &energy.Account{Breakdown: energy.Breakdown{Total: energy.Figure{Energy: &joules, Source: energy.Measured, CoveragePercent: 100}}}
	}
	fetch := &Fetch{Took: Seconds(2 * time.Second), Bytes: 1000, Resumed: 3, Done: true}
	r := sentBody(t, Outcome{Encode: Encode{Fetch: fetch}, Energy: known(100), FetchEnergy: known(7)})
	for name, want := range map[string]any{
		"fetch_bytes": 1000.0, "fetch_seconds": 2.0, "fetch_resumed": 3.0, "fetch_joules": 7.0, "fetch_energy_source": "measured",
	} {
		if got := r.Metrics[name]; got != want {
			t.Errorf("metrics.%s is %v, want %v", name, got, want)
		}
	}
	if r.EnergyJoules == nil || *r.EnergyJoules != 100 {
		t.Errorf("energy_joules is %v, want the 100 of the encode", r.EnergyJoules)
	}
	unknown := energy.UnknownAccount(time.Unix(0, 0), time.Unix(1, 0), "no sensor")
	r = sentBody(t, Outcome{Encode: Encode{Fetch: fetch}, FetchEnergy: &unknown})
	if got, there := r.Metrics["fetch_joules"]; there || r.Metrics["fetch_energy_source"] != "unavailable" {
		t.Errorf("unknown joules are sent as %v, %v", got, r.Metrics["fetch_energy_source"])
	}
}

func TestOnTime(t *testing.T) {
	start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	ran := func(wall, media time.Duration) Outcome {
		exit := start.Add(wall)
		return Outcome{Encode: Encode{Started: &start, Exited: &exit, Media: media}, At: exit.Add(time.Second)}
	}
	due := func(o Outcome, in time.Duration) Outcome {
		by := start.Add(in)
		o.Lease.Job.TimeoutAt = &by
		return o
	}
	failed, canceled := due(ran(time.Second, time.Minute), time.Hour), ran(time.Second, time.Minute)
	failed.Failure, canceled.Canceled = PlatformFailure("x"), true
	never := Outcome{Failure: PlatformFailure("x")}
	zero := due(ran(time.Minute, time.Minute), 0)
	*zero.Lease.Job.TimeoutAt = time.Time{}
	for name, test := range map[string]struct {
		o           Outcome
		met, judged bool
	}{
		"by its timeout_at":          {due(ran(9*time.Second, time.Second), 10*time.Second), true, true},
		"after its timeout_at":       {due(ran(10*time.Second, time.Hour), 10*time.Second), false, true},
		"in real time":               {ran(time.Minute, time.Minute), true, true},
		"at the edge of real time":   {ran(71*time.Second, time.Minute), true, true},
		"slower than real time":      {ran(72*time.Second, time.Minute), false, true},
		"short live stream":          {ran(12*time.Second, 10*time.Second), true, true},
		"timeout_at that is no time": {zero, true, true},
		"failed":                     {failed, false, true},
		"never started":              {never, false, true},
		"canceled":                   {canceled, false, false},
	} {
		if met, judged := test.o.OnTime(); met != test.met || judged != test.judged {
			t.Errorf("%s: got %v, %v; want %v, %v", name, met, judged, test.met, test.judged)
		}
	}
}

func TestDamageIsReported(t *testing.T) {
	missing := 1500 * time.Millisecond
	r := sentBody(t, Outcome{Encode: Encode{DecodeErrors: 7, Duplicated: 9, InputMissing: &missing}})
	for name, want := range map[string]any{"decode_errors": 7.0, "duplicated_frames": 9.0, "input_missing_seconds": 1.5} {
		if got := r.Metrics[name]; got != want {
			t.Errorf("metrics.%s is %v, want %v", name, got, want)
		}
	}
	r = sentBody(t, Outcome{})
	if got, there := r.Metrics["input_missing_seconds"]; there {
		t.Errorf("got %v s missing, want nothing where it is not known", got)
	}
}
