package messages

import "testing"

func TestFactsAreEqualWhereMastersChooseAlike(t *testing.T) {
	facts := func(change func(*NodeFacts)) NodeFacts {
		f := NodeFacts{
			GPUType: "NVIDIA A10", GPUCapabilities: []string{"nvenc_h264", "nvenc_h265"},
			Labels: map[string]string{"site": "a", LabelAgentVersion: "1", LabelEncoders: "libx264"},
		}
		change(&f)
		return f
	}
	for name, test := range map[string]struct {
		change          func(*NodeFacts)
		scheduling, all bool
	}{
		"same":              {func(*NodeFacts) {}, true, true},
		"order":             {func(f *NodeFacts) { f.GPUCapabilities = []string{"nvenc_h265", "nvenc_h264"} }, true, true},
		"updated agent":     {func(f *NodeFacts) { f.Labels[LabelAgentVersion] = "2" }, true, false},
		"software encoders": {func(f *NodeFacts) { delete(f.Labels, LabelEncoders) }, true, false},
		"label":             {func(f *NodeFacts) { f.Labels["site"] = "b" }, false, false},
		"no labels":         {func(f *NodeFacts) { f.Labels = nil }, false, false},
		"no card":           {func(f *NodeFacts) { f.GPUType, f.GPUCapabilities = "", nil }, false, false},
		"lost encoder":      {func(f *NodeFacts) { f.GPUCapabilities = f.GPUCapabilities[:1] }, false, false},
	} {
		a, b := facts(func(*NodeFacts) {}), facts(test.change)
		if got := a.Scheduling().Equal(b.Scheduling()); got != test.scheduling {
			t.Errorf("%s: got scheduling facts equal %t, want %t", name, got, test.scheduling)
		}
		if got := a.Equal(b); got != test.all {
			t.Errorf("%s: got facts equal %t, want %t", name, got, test.all)
		}
		if b.Labels != nil && b.Labels[LabelAgentVersion] == "" {
			t.Errorf("%s: the comparison removed a label", name)
		}
	}
}
