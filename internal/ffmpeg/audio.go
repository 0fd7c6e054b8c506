package ffmpeg

import "slices"

// defaultAudioBitrate is used for a job that names none.
const defaultAudioBitrate = "128k"

// audioCodecs maps a job's audio_codec to FFmpeg's encoder.
var audioCodecs = map[string]string{
	"aac": "aac", "opus": "libopus", "libopus": "libopus", "mp3": "libmp3lame", "libmp3lame": "libmp3lame", "copy": "copy", "none": "none",
}

// audio chooses the audio encoder; all renditions have the same sound.
func (pl *planner) audio(rs []rendition, synthetic bool) (args []string, sound bool) {
	rate, _, ok := bitrate(pl.params, maxAudioBitrate, "audio_bitrate")
	if !ok {
		rate = defaultAudioBitrate
	}
	supported := rs[0].container.audio
	name, word, named := pl.word("audio_codec")
	if !named {
		if len(supported) == 0 {
			return nil, false
		}
		word = supported[0]
	}
	encoder, known := audioCodecs[word]
	switch {
	case !known:
		pl.lacks("audio codec %s", word)
		return nil, false
	case encoder == "none":
		return nil, false
	}
	for _, r := range rs {
		if r.container.audio != nil && !slices.Contains(r.container.audio, encoder) {
			if !named {
				name = "outputs"
			}
			pl.problem(name, "%s does not go into %s", word, r.container.format)
			return nil, false
		}
	}
	if encoder == "copy" && !synthetic {
		return []string{"-c:a", "copy"}, true
	}
	if encoder == "copy" { // the PCM of a synthetic input is not worth copying
		if len(supported) == 0 {
			return nil, false
		}
		encoder = supported[0]
	}
	if _, ok := pl.caps.Audio[encoder]; !ok {
		pl.lacks("audio encoder %s", encoder)
		return nil, false
	}
	return []string{"-c:a", encoder, "-b:a", rate}, true
}
