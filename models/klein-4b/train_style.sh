#!/bin/sh
# Train a style for klein-4B:  models/klein-4b/train_style.sh NAME PICTURES [WORDS]
#
# NAME      what `lora` will call it, such as dark
# PICTURES  20 to 100 pictures of the style, each with what is to be seen in it in a .txt beside it;
#           the style itself is not named there
# WORDS     its trigger, NAME if left out: put before every caption here, and before prompts later
#
# It is trained on klein-base-4b, which is not distilled, and served on klein-4b, which is: a LoRA of
# the one fits the other, and training on a distilled model undoes the distillation. Broken off, it
# goes on where it was. These settings have not been run on the published weights, see docs/styles.md.
set -eu
name=$1 pictures=$2 words=${3:-$1}

RANK=32          # 100 MB in bfloat16; 16 where pictures are few
STEPS=2000       # about 40 times through 50 pictures
RATE=1e-4
SIZE=768         # pixels of a square of the largest area; 512 on a GPU of 16 GB
STRENGTH=0.8     # where a request names none

cd "$(dirname "$0")/../.."
export IRIS_MODEL=klein-4b
exec .venv/bin/iris styles train "$name" --images "$pictures" --trigger "$words" \
    --on klein-base-4b --rank $RANK --steps $STEPS --rate $RATE --size $SIZE \
    --default-strength $STRENGTH --sample-every 250 --sample-steps 28
