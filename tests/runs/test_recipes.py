"""Every recipe's network keeps the promises that a training step makes for it."""

import pytest
import torch

from ssm.model.backbone import Backbone
from ssm.training.exactness import check_exact
from ssm_platform.runs.recipes import RECIPES


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_a_recipe_names_a_backbone_that_may_be_trained(name: str) -> None:
    config = RECIPES[name]().model
    backbone = config.backbone.model_copy(update={"pretrained": False})
    with torch.device("meta"):
        check_exact(Backbone(backbone, config.width))
