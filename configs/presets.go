package configs

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
)

const allowedPresets = "presets by codec: h264 and h265 with a name from ultrafast to placebo; av1 with such a name or 0 to 12; " +
	"vp9 with such a name, good/0 to good/5 or realtime/0 to realtime/8"

// presetPatterns match what each codec allows: x264's names of presets, which stand for
// comparable speeds of the other encoders, and an encoder's own notation.
var presetPatterns = func() map[string]*regexp.Regexp {
	const names = "ultrafast|superfast|veryfast|faster|fast|medium|slow|slower|veryslow|placebo"
	patterns := map[string]*regexp.Regexp{}
	for codec, own := range map[string]string{"h264": "", "h265": "", "av1": "|[0-9]|1[0-2]", "vp9": "|good/[0-5]|realtime/[0-8]"} {
		patterns[codec] = regexp.MustCompile("^(?:" + names + own + ")$")
	}
	return patterns
}()

func checkPresets(presets Labels) error {
	if len(presets) == 0 {
		return errEmpty
	}
	for codec, preset := range presets {
		pattern, known := presetPatterns[codec]
		switch {
		case !known:
			return fmt.Errorf("codec %q is unknown", shorten(codec))
		case preset == "":
			return errors.New(codec + " has no preset")
		case !pattern.MatchString(preset):
			return fmt.Errorf("%s has no preset %q", codec, shorten(preset))
		}
	}
	return nil
}

// completePresets adds the defaults of codecs that are left out.
func completePresets(presets Labels) Labels {
	complete := maps.Clone(Defaults().Jobs.DefaultPresets)
	maps.Copy(complete, presets)
	return complete
}
