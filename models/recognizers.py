"""Speech recognition from an audio encoder's hidden states: one forward pass gives embedding and transcript."""

from collections.abc import Sequence

from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.modeling_outputs import BaseModelOutput


class CTCHead(nn.Module):
    """The linear layer of a CTC model on a Wav2Vec2, HuBERT or WavLM encoder, with greedy decoding.

    Args:
        model: The CTC model. Its ``base_model`` is the encoder.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase):
        super().__init__()
        self.linear = model.lm_head
        self.tokenizer = tokenizer

    def forward(self, hidden: Tensor, frames: Sequence[int]) -> list[str]:
        """Transcripts from hidden states [B, T, D]. The first ``frames[i]`` time steps of row i contain speech."""
        tokens = self.linear(hidden).argmax(-1).cpu()
        texts = [self.tokenizer.decode(row[:count]).strip() for row, count in zip(tokens, frames, strict=True)]
        # some vocabularies have only capitals, but case-sensitive text encoders have seen little text in capitals
        return [text.lower() if text.isupper() else text for text in texts]


class WhisperHead(nn.Module):
    """Whisper's decoder, with greedy decoding. A multilingual model detects the language of each recording."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase):
        super().__init__()
        self.model = model
        self.tokenizer = tokenizer

    def forward(self, hidden: Tensor, frames: Sequence[int]) -> list[str]:
        """Transcripts from hidden states [B, T, D] of 30 s windows."""
        multilingual = getattr(self.model.generation_config, "is_multilingual", False)
        task = {"task": "transcribe"} if multilingual else {}
        tokens = self.model.generate(encoder_outputs=BaseModelOutput(hidden), do_sample=False, num_beams=1, **task)
        return [text.strip() for text in self.tokenizer.batch_decode(tokens, skip_special_tokens=True)]
