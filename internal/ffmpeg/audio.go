package ffmpeg

import (
	"fmt"
	"slices"
)

// defaultAudioBitrate is used for a job that names none.
const defaultAudioBitrate = "128k"

// audioCodecs maps a job's audio_codec to FFmpeg's encoder.
var audioCodecs = map[string]string{
	"aac": "aac", "opus": "libopus", "libopus": "libopus", "mp3": "libmp3lame", "libmp3lame": "libmp3lame", "copy": "copy", "none": "none",
}

// audioLayouts are the channel layouts of an encoder that does not state them to FFmpeg's
// filters, which would choose one (libopusenc.c; RFC 7845, 5.1.1.2).
var audioLayouts = map[string]string{"libopus": "mono|stereo|3.0|quad|5.0|5.1|6.1|7.1"}

// maxAudioChannels is the most that a layout has. More channels are separate tracks, as
// broadcasters record them, of which the first two are the programme.
const maxAudioChannels = 8

// audio are the arguments for an output's sound; all renditions have the same. Zero: none.
type audio struct {
	mapping  []string
	encoding []string
	copied   bool
}

// audio chooses the track and the encoder.
func (pl *planner) audio(rs []rendition) audio {
	rate, _, ok := bitrate(pl.params, maxAudioBitrate, "audio_bitrate")
	if !ok {
		rate = defaultAudioBitrate
	}
	of, encoder := pl.source, pl.audioEncoder(rs)
	switch {
	case encoder == "" || of.probed && len(of.audio) == 0:
		return audio{}
	case encoder == "copy":
		return audio{[]string{"-map", fmt.Sprintf("0:a:%d?", max(of.track, 0))}, []string{"-c:a", "copy"}, true}
	case !of.probed: // a synthetic input, or a live one, which may have no audio
		return audio{[]string{"-map", "0:a:0?"}, []string{"-c:a", encoder, "-b:a", rate}, false}
	case of.track < 0:
		return audio{}
	}
	return audio{[]string{"-map", fmt.Sprintf("0:a:%d", of.track)}, append([]string{"-c:a", encoder, "-b:a", rate}, pl.layout(encoder)...), false}
}

// audioEncoder is FFmpeg's name of the encoder, or copy; empty for none.
func (pl *planner) audioEncoder(rs []rendition) string {
	supported := rs[0].container.audio
	name, word, named := pl.word("audio_codec")
	if !named {
		if len(supported) == 0 {
			return ""
		}
		word = supported[0]
	}
	encoder, known := audioCodecs[word]
	switch {
	case !known:
		pl.lacks("audio codec %s", word)
		return ""
	case encoder == "none":
		return ""
	}
	for _, r := range rs {
		if r.container.audio != nil && !slices.Contains(r.container.audio, encoder) {
			if !named {
				name = "outputs"
			}
			pl.problem(name, "%s is not supported in %s", word, r.container.format)
			return ""
		}
	}
	if encoder == "copy" && pl.hasInput {
		return encoder
	}
	if encoder == "copy" { // the PCM of a synthetic input is not worth copying
		if len(supported) == 0 {
			return ""
		}
		encoder = supported[0]
	}
	if _, ok := pl.caps.Audio[encoder]; !ok {
		pl.lacks("audio encoder %s", encoder)
		return ""
	}
	return encoder
}

// layout are the arguments that bring the audio to channels that the encoder takes.
func (pl *planner) layout(encoder string) []string {
	of := pl.source.audio[pl.source.track]
	if of.Channels > maxAudioChannels {
		pl.note("the input's audio has %d channels without a layout; its first two were encoded as stereo", of.Channels)
		return []string{"-af", "pan=stereo|c0=c0|c1=c1"}
	}
	if layouts := audioLayouts[encoder]; layouts != "" && of.Channels > 2 {
		return []string{"-af", "aformat=channel_layouts=" + layouts}
	}
	return nil
}
